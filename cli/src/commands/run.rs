//! `ozma run`: creates a run, shows its events, ends with its outcome.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    api::{
        config::{AgentConfig, RunHarness},
        runs::{CreateRun, RunCreated},
    },
    ids::RunId,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    attend::{Attend, Made},
    client::Client,
    connection::Connection,
    context,
    environments::{self, Ingredients},
    failure::Failure,
    interrupts::Interrupts,
    mcp,
    policies::Policies,
    prompt::prompt,
    surroundings::Surroundings,
    term::Term,
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
    /// Who answers: claude, codex, opencode, gemini, agent (built in) or command
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
    /// Go on with this conversation: any of its runs
    #[arg(long, value_name = "RUN_ID")]
    conversation: Option<RunId>,
    /// A JSON file of MCP servers: {"mcpServers": {NAME: {"command", "args", "env"} or {"url", "headers"}}}
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    #[command(flatten)]
    attend: Attend,
}

pub(crate) async fn run(
    args: RunArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    if let (Some(harness), Some(_)) = (&args.harness, &args.ingredients.command)
        && harness != "command"
    {
        let wrong = format!("--command is no command line of {harness}'s: name one of the two");
        return Err(Failure::usage(wrong));
    }
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
        mcp_servers: args.mcp.as_deref().map(mcp::read).transpose()?,
        ..AgentConfig::default()
    };
    args.policies.put_into_run(&mut config);
    let body = CreateRun {
        prompt: Some(prompt),
        title: args.title,
        config: Some(config),
        conversation_id: args.conversation.map(String::from),
        ..CreateRun::default()
    };
    let created = create(&client, &body).await.map_err(hinted)?;
    let made = Made { run_id: &created.run_id, at_capacity: created.at_capacity };
    args.attend.watch(&client, made, &created, &mut interrupts, term).await
}

/// Creates the run, once, however often it has to be asked for.
pub(crate) async fn create(client: &Client, body: &CreateRun) -> Result<RunCreated, Failure> {
    once(client, "/api/v1/agent/runs", body).await
}

/// Asks for something to be made, again if no answer comes, under one idempotency key: it is made once.
pub(crate) async fn once<B: Serialize + Sync, T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &B,
) -> Result<T, Failure> {
    let mut key = [0_u8; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::platform(format!("no randomness: {error}")))?;
    let key = hex::encode(key);
    let mut tries = 0;
    loop {
        tries += 1;
        match client.post_once(path, &key, body).await {
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

/// What to do about a conversation that cannot go on now.
pub(crate) fn hinted(failure: Failure) -> Failure {
    match failure.api_code.as_deref() {
        Some("conversation_busy") if failure.hint.is_none() => {
            failure.hint("wait for its last run, or cancel that one with `ozma runs cancel RUN`")
        }
        Some("session_worker_away") if failure.hint.is_none() => {
            failure.hint("start that worker again, or begin a new conversation with `ozma run`")
        }
        _ => failure,
    }
}
