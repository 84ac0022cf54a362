//! `ozma worker`: runs containers for a plane.

mod drain;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use protocol::secret::Secret;
use service::{clock::Clock, lifecycle::Lifecycle};
use worker::{Config, config::Backend};

use crate::{
    connection::secret, failure::Failure, interrupts::Interrupts, stack::for_config,
    surroundings::Surroundings, term::Term,
};

const AFTER_HELP: &str = "\
The first SIGTERM or Ctrl-C takes nothing new and lets runs finish; after --drain-secs, or at the
second, what still runs is handed back to the queue.

Settings come from --config (TOML), then the environment (OZ_PLANE_URL, OZ_WORKER_TOKEN, OZ_WORKER_ID,
DOCKER_HOST, OPENAI_API_KEY, …), then these flags.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    command: Option<WorkerCommand>,
    /// A TOML file of settings
    #[arg(long, value_name = "FILE", env = "OZ_WORKER_CONFIG")]
    config: Option<PathBuf>,
    /// Say whether the settings are right, and start nothing
    #[arg(long)]
    check_config: bool,
    /// The plane's address
    #[arg(long, value_name = "URL")]
    plane_url: Option<String>,
    /// A worker token or the admin key; other users of this machine can see it: better --token-file
    #[arg(long, value_name = "TOKEN", value_parser = secret(), conflicts_with = "token_file")]
    token: Option<Secret>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// This worker's name
    #[arg(long, value_name = "NAME")]
    worker_id: Option<String>,
    /// What runs run in
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// Runs at once
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// Where running work is remembered; one process at a time may use it
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// The image that holds the sidecar
    #[arg(long, value_name = "IMAGE")]
    sidecar_image: Option<String>,
    /// The sidecar of the direct backend
    #[arg(long, value_name = "FILE")]
    sidecar_binary: Option<PathBuf>,
    /// A level (error, warn, info, debug) or a filter
    #[arg(long, value_name = "LEVEL", env = "OZ_LOG_LEVEL", default_value = "info")]
    log: String,
    /// Seconds that runs may take to finish at a stop
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    drain_secs: u64,
}

/// What is said to a plane about a worker, rather than being one.
#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Let a worker take nothing new; what runs there goes on (needs the admin key)
    Drain(drain::DrainArgs),
    /// Let a worker take work again (needs the admin key)
    Resume(drain::ResumeArgs),
}

/// See [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// A container each
    Docker,
    /// A folder each, without any isolation
    Direct,
}

impl From<BackendArg> for Backend {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Docker => Self::Docker,
            BackendArg::Direct => Self::Direct,
        }
    }
}

pub(crate) async fn run(
    args: WorkerArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    match args.command {
        Some(WorkerCommand::Drain(args)) => return drain::drain(args, around, term).await,
        Some(WorkerCommand::Resume(args)) => return drain::resume(args, around, term).await,
        None => {}
    }
    let (check, drain) = (args.check_config, Duration::from_secs(args.drain_secs));
    let log = args.log.clone();
    let config = config(args, around)?;
    if check {
        return Ok(term.line("the configuration is valid")?);
    }
    service::logging::start(&log)?;
    let mut interrupts = Interrupts::new()?;
    let life = Lifecycle::new();
    let work = life.spawn(worker::run(config, Clock::system(), life.clone()));
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => return worked(ended),
        () = interrupts.next() => {
            tracing::info!("stopping: runs finish, nothing new is taken; a second signal hands them back");
        }
    }
    life.stop(drain, interrupts.next()).await;
    worked(work.await)
}

fn worked(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::platform(format!("the worker ended: {error:#}")).hint(
            if error.to_string().starts_with("state_dir") {
                "name a folder you may write with --state-dir"
            } else {
                "`ozma doctor` looks for the usual causes"
            },
        )),
        Err(error) => Err(Failure::platform(format!("the worker broke: {error}"))),
    }
}

fn config(args: WorkerArgs, around: &Surroundings) -> Result<Config, Failure> {
    let wrong = |error: anyhow::Error| {
        Failure::usage(format!("{error:#}")).hint("`ozma worker --help` lists the settings")
    };
    let mut config = match &args.config {
        Some(path) => Config::read(path).map_err(wrong)?,
        None => Config::default(),
    };
    config.overlay_env(|name| around.var(name).map(str::to_owned)).map_err(wrong)?;
    if let Some(url) = args.plane_url {
        config.plane_url = url;
    }
    if let Some(token) = &args.token {
        (config.token, config.token_file) = (Some(for_config(token)), None);
    }
    if let Some(file) = args.token_file {
        (config.token, config.token_file) = (None, Some(file));
    }
    if let Some(id) = args.worker_id {
        config.worker_id = id;
    }
    if let Some(backend) = args.backend {
        config.backend = backend.into();
    }
    if let Some(capacity) = args.capacity {
        config.capacity = capacity;
    }
    if let Some(folder) = args.state_dir {
        config.state_dir = folder;
    }
    if let Some(image) = args.sidecar_image {
        config.sidecar_image = image;
    }
    config.sidecar_binary = args.sidecar_binary.or(config.sidecar_binary);
    config.validate().and_then(|()| config.check_files()).map_err(wrong)?;
    if config.token.is_none() && config.token_file.is_none() {
        return Err(Failure::usage("the worker has no token for its plane").hint(
            "an admin makes one with `ozma token create NAME --kind worker`; give it with --token-file or OZ_WORKER_TOKEN",
        ));
    }
    Ok(config)
}
