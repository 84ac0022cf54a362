//! `ozma up`: a plane and a worker on this machine, in one process, ready for `ozma run` in another terminal.

mod folder;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use control_plane::Config as PlaneConfig;
use protocol::spec::ProviderKind;
use worker::{Config as WorkerConfig, config::Backend};

use crate::{
    commands::worker::BackendArg,
    context::{self, Context},
    failure::Failure,
    interrupts::Interrupts,
    stack::{QUIETLY, Stack, backend, model},
    surroundings::Surroundings,
    term::{Style, Term},
};

const AFTER_HELP: &str = "\
Keeps everything in one folder and writes the context file, so that a plain `ozma run \"…\"` works
in another terminal. The first Ctrl-C lets runs finish, the second hands them back to the queue.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct UpArgs {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where everything is kept [default: ~/.local/share/ozma]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// What runs run in; containers where an engine answers
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// Runs at once
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// The image of runs without an environment
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A worker's TOML file: providers and their keys, their images, sessions, bounds
    #[arg(long, value_name = "FILE", env = "OZ_WORKER_CONFIG")]
    worker_config: Option<PathBuf>,
    /// A level (error, warn, info, debug) or a filter
    #[arg(long, value_name = "LEVEL", env = "OZ_LOG_LEVEL", default_value = QUIETLY)]
    log: String,
    /// Seconds that runs may take to finish at a stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_secs: u64,
}

pub(crate) async fn run(
    args: UpArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    service::logging::start(&args.log)?;
    let mut interrupts = Interrupts::new()?;
    let data_dir = data_dir(args.data_dir.as_deref(), around)?;
    let mut plane = plane_config(&args, &data_dir, around)?;
    let mut worker = worker_config(&args, &data_dir, around)?;
    let _lock = folder::lock(&data_dir)?;
    if worker.worker_id == WorkerConfig::default().worker_id {
        worker.worker_id = folder::worker_id(&data_dir)?;
    }
    let runs_in = backend::choose(&mut worker, args.backend, term).await?;
    if plane.default_image.is_none() {
        plane.default_image = Some(backend::default_image(&worker).await);
    }
    let default_image = plane.default_image.clone();
    let model = model::ensure(&mut worker, &data_dir, None)?;
    let (backend, capacity) = (worker.backend, worker.capacity);
    let answers = answers(&plane, &worker);

    let stack = Stack::start(plane, worker).await?;
    let started = async {
        stack.worker_connected().await?;
        let token = folder::tenant_token(&stack, &data_dir).await?;
        let context = Context {
            admin_key_file: stack.admin_key_file.clone(),
            data_dir: Some(data_dir.clone()),
            default_image: default_image.clone(),
            backend: Some(backend.as_str().to_owned()),
            has_model: model != model::Model::BuiltIn,
            ..Context::of(stack.url.clone(), token)
        };
        context::write(around, &context).map_err(Failure::from)
    };
    let context_file = match started.await {
        Ok(path) => path,
        Err(failure) => {
            stack.stop(Duration::ZERO, &mut interrupts).await;
            return Err(failure);
        }
    };

    let image = default_image.unwrap_or_default();
    let runs_in = match backend {
        Backend::Docker => {
            format!("{runs_in}, {capacity} at once; {image} unless another is named")
        }
        Backend::Direct => format!("{runs_in}, {capacity} at once"),
    };
    let facts = [
        ("data", data_dir.display().to_string()),
        ("context", context_file.display().to_string()),
        ("runs in", runs_in),
        ("answers", answers),
        ("agent", model.to_string()),
    ];
    greet(&stack.url, &facts, term)?;
    let ended = tokio::select! {
        () = interrupts.next() => None,
        () = stack.ended() => Some(stack.failure()),
    };
    if ended.is_none() {
        term.note("stopping: runs that have begun may finish; Ctrl-C again hands them back");
    }
    stack.stop(Duration::from_secs(args.drain_secs), &mut interrupts).await;
    ended.map_or(Ok(()), Err)
}

/// Who answers a prompt that names nobody, and for whom there is a key here.
fn answers(plane: &PlaneConfig, worker: &WorkerConfig) -> String {
    let who = plane.default_harness.unwrap_or(ProviderKind::Agent);
    let tables = &worker.providers;
    let keys: Vec<&str> = [
        ("claude", &tables.claude),
        ("codex", &tables.codex),
        ("opencode", &tables.opencode),
        ("gemini", &tables.gemini),
    ]
    .into_iter()
    .filter(|(_, table)| model::named(table) != model::Model::BuiltIn)
    .map(|(name, _)| name)
    .collect();
    let keys = if keys.is_empty() { "none of the others" } else { &keys.join(", ") };
    format!("{}, unless a run names another; the worker has an endpoint for {keys}", who.as_str())
}

fn greet(url: &str, facts: &[(&str, String)], term: &mut Term) -> Result<(), Failure> {
    let title = format!("Ozma is up: {url}");
    term.line(&format!("{}   (API page: {url}/docs)", term.paint(Style::Bold, &title)))?;
    for (name, fact) in facts {
        term.line(&format!("  {} {fact}", term.paint(Style::Dim, &format!("{name:<8}"))))?;
    }
    term.line("")?;
    term.line("In another terminal:")?;
    for line in [
        "ozma run \"look around and say what this is\"",
        "ozma run --repo https://github.com/you/project \"fix the failing test\"",
        "ozma runs list",
    ] {
        term.line(&format!("  {}", term.paint(Style::Accent, line)))?;
    }
    Ok(())
}

/// The folder everything is kept in, as an absolute path.
pub(crate) fn data_dir(given: Option<&Path>, around: &Surroundings) -> Result<PathBuf, Failure> {
    let given =
        given.map(Path::to_path_buf).or_else(|| around.var("OZ_DATA_DIR").map(PathBuf::from));
    let folder = given.or_else(|| around.data_home.as_ref().map(|home| home.join("ozma")));
    let folder = folder.ok_or_else(|| {
        Failure::usage("there is no folder for the data")
            .hint("name one with --data-dir, or set HOME")
    })?;
    Ok(std::path::absolute(folder)?)
}

fn plane_config(
    args: &UpArgs,
    data_dir: &Path,
    around: &Surroundings,
) -> Result<PlaneConfig, Failure> {
    // `DATABASE_URL` of a shell is as likely another program's; who means it uses `ozma serve`.
    let variables = around.vars.clone().into_iter().filter(|(name, _)| name != "DATABASE_URL");
    let mut config = PlaneConfig::load(None, variables)?;
    data_dir.clone_into(&mut config.data_dir);
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(image) = &args.image {
        config.default_image = Some(image.clone());
    }
    config.validate().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(config)
}

fn worker_config(
    args: &UpArgs,
    data_dir: &Path,
    around: &Surroundings,
) -> Result<WorkerConfig, Failure> {
    let wrong = |error: anyhow::Error| Failure::usage(format!("{error:#}"));
    let mut config = match &args.worker_config {
        Some(file) => WorkerConfig::read(file).map_err(wrong)?,
        None => WorkerConfig::default(),
    };
    config.state_dir = data_dir.join("worker");
    config.overlay_env(|name| around.var(name).map(str::to_owned)).map_err(wrong)?;
    // The worker in here talks to the plane in here, whatever the shell or the file says of others.
    (config.token, config.token_file) = (None, None);
    config.plane_url = WorkerConfig::default().plane_url;
    if let Some(capacity) = args.capacity {
        config.capacity = capacity;
    }
    config.validate().and_then(|()| config.check_files()).map_err(|error| {
        wrong(error).hint("a shorter --data-dir, or the setting named, mends it")
    })?;
    Ok(config)
}
