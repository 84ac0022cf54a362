//! `ozma run`: creates a run, shows its events, ends with its outcome.

use std::path::PathBuf;

use clap::Args;
use protocol::api::{
    config::{AgentConfig, RunHarness},
    runs::{CreateRun, RunCreated, RunItem},
};

use crate::{
    client::Client,
    commands::runs::show,
    connection::Connection,
    context,
    environments::{self, Ingredients},
    failure::{Failure, code},
    follow::{Options, follow},
    interrupts::Interrupts,
    outcome,
    policies::Policies,
    prompt::prompt,
    surroundings::Surroundings,
    term::{Style, Term},
};

/// How often a create is sent when no answer comes; the idempotency key makes them one run.
const TRIES: u32 = 3;

const AFTER_HELP: &str = "\
The prompt comes from --file or the argument, else standard input. The first Ctrl-C cancels the
run, the second leaves it. --image, --repo, --command, --setup and --artifact make an environment
named cli-…, once for each content. Ends with 0 succeeded, 1 failed, 3 error, 130 cancelled.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    connection: Connection,
    /// What the agent is to do; `-` reads standard input
    prompt: Option<String>,
    /// Read the prompt from a file; `-` is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// The environment to run in, by name or id
    #[arg(long, short, value_name = "NAME|ID", conflicts_with_all = ["image", "repo", "command", "setup", "artifact"])]
    env: Option<String>,
    #[command(flatten)]
    ingredients: Ingredients,
    /// Who answers: agent (built in) or command
    #[arg(long, value_name = "KIND")]
    harness: Option<String>,
    /// The model to ask for
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The only worker that may run it
    #[arg(long, value_name = "WORKER_ID")]
    worker: Option<String>,
    /// Before its tenant's other waiting runs, or after them: -100 to 100, 0 without it
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    #[command(flatten)]
    policies: Box<Policies>,
    /// A title; made from the prompt without it
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Print the run's id and leave it running
    #[arg(long)]
    no_follow: bool,
    /// One JSON object a line: every event, then the outcome
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(
    args: RunArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    let prompt = prompt(args.file.as_deref(), args.prompt.as_deref())?;
    let mut interrupts = Interrupts::new()?;
    let environment_id = if args.ingredients.is_empty() {
        match &args.env {
            Some(wanted) => Some(environments::find(&client, wanted).await?.environment_id),
            None => None,
        }
    } else {
        let default = context::read(around)?.and_then(|context| context.default_image);
        let made = environments::ensure(&client, args.ingredients, default.as_deref()).await?;
        Some(made.environment_id)
    };
    let mut config = AgentConfig {
        environment_id: environment_id.map(String::from),
        model_id: args.model,
        worker_host: args.worker,
        harness: args.harness.map(|kind| RunHarness { kind: Some(kind), ..RunHarness::default() }),
        priority: args.priority,
        ..AgentConfig::default()
    };
    args.policies.put_into_run(&mut config);
    let body = CreateRun {
        prompt: Some(prompt),
        title: args.title,
        config: Some(config),
        ..CreateRun::default()
    };
    let created = create(&client, &body).await?;
    let id = created.run_id.as_str();
    if args.no_follow {
        if args.json {
            term.json(&created)?;
        } else {
            term.line(id)?;
        }
        return Ok(());
    }
    if !args.json {
        term.line(&term.paint(Style::Dim, &format!("run {id}")))?;
        if created.at_capacity {
            term.note("no worker has room for it now; it waits in the queue (`ozma worker` starts another)");
        }
    }
    let options = Options { json: args.json, cancels: true };
    let state = follow(&client, id, options, &mut interrupts, term).await?;
    let exit_code = outcome::exit_code(state);
    let item: RunItem = client.get(&format!("/api/v1/agent/runs/{id}"), &[]).await?;
    if args.json {
        term.json(&serde_json::json!({
            "kind": "outcome", "run_id": id, "state": state, "exit_code": exit_code, "run": item,
        }))?;
    } else {
        show::closing(&item, client.url(), term)?;
    }
    if exit_code == code::SUCCESS { Ok(()) } else { Err(Failure::quiet(exit_code)) }
}

/// Creates the run, once, however often it has to be asked for.
pub(crate) async fn create(client: &Client, body: &CreateRun) -> Result<RunCreated, Failure> {
    let mut key = [0_u8; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::platform(format!("no randomness: {error}")))?;
    let key = hex::encode(key);
    let mut tries = 0;
    loop {
        tries += 1;
        match client.post_once("/api/v1/agent/runs", &key, body).await {
            // A refused connection reached nobody; anything else that passes is worth another try.
            Err(failure) if tries < TRIES && failure.passing() && failure.status.is_some() => {
                // Jittered and bounded by TRIES: the plane may be the busier for others who try again.
                tokio::time::sleep(service::backoff::jitter(std::time::Duration::from_secs(1)))
                    .await;
            }
            done => return done,
        }
    }
}
