//! `ozma demo`: one whole run, end to end, on a repository made for it; the patch, the timings and the address
//! stay on the screen.

mod project;
mod result;

use std::{path::Path, time::Duration};

use clap::Args;
use control_plane::Config as PlaneConfig;
use protocol::{
    api::{config::AgentConfig, runs::CreateRun},
    spec::Repo,
};
use tempfile::TempDir;
use worker::{Config as WorkerConfig, config::Backend};

use crate::{
    client::Client,
    commands::{run::create, worker::BackendArg},
    connection::Target,
    context::{self, Context},
    environments::{self, Ingredients},
    failure::{Failure, code},
    follow::{Options, follow},
    interrupts::Interrupts,
    outcome,
    stack::{QUIETLY, Stack, backend, model},
    surroundings::Surroundings,
    term::{Style, Term},
};

/// The image with the demo's repository in it, which `scripts/quickstart.sh` makes.
pub(crate) const IMAGE: &str = "ozma-demo:latest";

/// Where the repository is inside it.
const REPO: &str = "/srv/demo.git";

const PROMPT: &str = "Receipts with more than one of a thing come out too low. Find out why, fix it, and show \
     that the tests pass.";

/// Turns of the scripted model, for a machine without a model.
const SCRIPT: &str = include_str!("../../../compose/demo/script.json");

/// How long a plane may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Uses the plane that `ozma up` runs, if it has a model; otherwise a plane and a worker of its own,
on a free port and in a folder that is removed afterwards.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DemoArgs {
    /// What runs run in; containers where an engine answers
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// Leave the plane and the worker running until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// One JSON object a line: every event, then the outcome
    #[arg(long)]
    json: bool,
    /// A level (error, warn, info, debug) or a filter
    #[arg(long, value_name = "LEVEL", env = "OZ_LOG_LEVEL", default_value = QUIETLY)]
    log: String,
}

pub(crate) async fn run(
    args: DemoArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    service::logging::start(&args.log)?;
    let mut interrupts = Interrupts::new()?;
    if let Some(context) = running(around, args.backend).await {
        let direct = context.backend.as_deref() == Some(Backend::Direct.as_str());
        let target = Target { url: context.url.clone(), token: context.token.clone() };
        let client = Client::new(&target)?;
        term.note(&format!("using the plane that runs at {}", context.url));
        let folder = context.data_dir.filter(|_| direct);
        let demo = Demo { client: &client, folder: folder.as_deref(), json: args.json };
        return demo.run(&mut interrupts, term).await;
    }
    let folder = tempfile::Builder::new().prefix("ozma-demo-").tempdir()?;
    let (stack, direct) = start(&args, folder.path(), around, term).await?;
    let done = own(&stack, &folder, direct, &args, &mut interrupts, term).await;
    stack.stop(Duration::from_secs(5), &mut interrupts).await;
    done
}

async fn own(
    stack: &Stack,
    folder: &TempDir,
    direct: bool,
    args: &DemoArgs,
    interrupts: &mut Interrupts,
    term: &mut Term,
) -> Result<(), Failure> {
    stack.worker_connected().await?;
    let token = stack.new_tenant("ozma demo").await?;
    let client = stack.client(&token)?;
    let demo = Demo { client: &client, folder: direct.then(|| folder.path()), json: args.json };
    let done = demo.run(interrupts, term).await;
    if args.keep {
        // A context of its own: the user's stays as it is.
        let home =
            Surroundings { config_home: Some(folder.path().to_owned()), ..Surroundings::default() };
        let context = Context {
            admin_key_file: stack.admin_key_file.clone(),
            default_image: Some(IMAGE.to_owned()),
            ..Context::of(stack.url.clone(), token)
        };
        context::write(&home, &context)?;
        term.line("")?;
        term.line(&format!("Still running at {} until Ctrl-C. In another terminal:", stack.url))?;
        let command = format!("  XDG_CONFIG_HOME={} ozma runs list", folder.path().display());
        term.line(&term.paint(Style::Accent, &command))?;
        tokio::select! {
            () = interrupts.next() => {}
            () = stack.ended() => return Err(stack.failure()),
        }
    } else if !args.json {
        term.note("the demo's plane ends now, and the address with it: --keep leaves it running");
    }
    done
}

/// The plane of the context, if it runs on this machine, has a model and what was asked for.
async fn running(around: &Surroundings, backend: Option<BackendArg>) -> Option<Context> {
    let context = context::read(around).ok().flatten()?;
    let wanted = backend.map(|backend| Backend::from(backend).as_str());
    let fits = wanted.is_none_or(|wanted| context.backend.as_deref() == Some(wanted));
    if !context.has_model || context.data_dir.is_none() || !fits {
        return None;
    }
    let target = Target { url: context.url.clone(), token: context.token.clone() };
    let there = Client::new(&target).ok()?.healthy(PATIENCE).await;
    there.then_some(context)
}

/// A stack of the demo's own; whether its backend is the direct one.
async fn start(
    args: &DemoArgs,
    folder: &Path,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(Stack, bool), Failure> {
    let mut worker = WorkerConfig::default();
    worker
        .overlay_env(|name| around.var(name).map(str::to_owned))
        .map_err(|error| Failure::usage(format!("{error:#}")))?;
    // A name of its own: a worker removes what carries its name and is not its own.
    let unique = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    worker.worker_id = unique;
    worker.state_dir = folder.join("worker");
    (worker.token, worker.token_file) = (None, None);
    let runs_in = backend::choose(&mut worker, args.backend, term).await?;
    let direct = worker.backend == Backend::Direct;
    if !direct {
        backend::need_image(&worker, IMAGE).await?;
    }
    let model = model::ensure(&mut worker, folder, Some(SCRIPT))?;
    if !args.json {
        let told = match &model {
            model::Model::BuiltIn => {
                "a scripted one, since none is configured (set OPENAI_API_KEY for a real one)"
                    .to_owned()
            }
            other => other.to_string(),
        };
        term.line(&format!("{} {runs_in}", term.paint(Style::Dim, "runs in")))?;
        term.line(&format!("{} {told}", term.paint(Style::Dim, "model  ")))?;
    }
    let plane = PlaneConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.join("plane"),
        // A worker of this name never comes back, and nobody else may take what it keeps.
        keep_sessions: false,
        ..PlaneConfig::default()
    };
    Ok((Stack::start(plane, worker).await?, direct))
}

struct Demo<'a> {
    client: &'a Client,
    /// With the direct backend: where the repository is made, there being no image to hold it.
    folder: Option<&'a Path>,
    json: bool,
}

impl Demo<'_> {
    async fn run(&self, interrupts: &mut Interrupts, term: &mut Term) -> Result<(), Failure> {
        let repo = match self.folder {
            Some(folder) => project::make(folder)?,
            None => REPO.to_owned(),
        };
        let ingredients = Ingredients {
            image: Some(IMAGE.to_owned()),
            repo: vec![Repo::new(repo)],
            ..Ingredients::default()
        };
        let environment = environments::ensure(self.client, ingredients, None).await?;
        let body = CreateRun {
            prompt: Some(PROMPT.to_owned()),
            title: Some("Ozma's demo".to_owned()),
            config: Some(AgentConfig {
                environment_id: Some(environment.environment_id.into()),
                ..AgentConfig::default()
            }),
            ..CreateRun::default()
        };
        if !self.json {
            term.line(&format!("{} {PROMPT}", term.paint(Style::Dim, "prompt ")))?;
            term.line("")?;
        }
        let created = create(self.client, &body).await?;
        let id = created.run_id.as_str();
        let options = Options { json: self.json, cancels: true };
        let state = follow(self.client, id, options, interrupts, term).await?;
        result::show(self.client, &created.run_id, self.json, term).await?;
        match outcome::exit_code(state) {
            code::SUCCESS => Ok(()),
            exit_code => Err(Failure::quiet(exit_code)),
        }
    }
}
