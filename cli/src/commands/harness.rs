//! `ozma harness`: images of the providers' command lines, for workers to mount into containers that lack them.

use clap::{Args, Subcommand, ValueEnum};
use protocol::spec::ProviderKind;
use worker::{
    Config as WorkerConfig,
    harness_image::{self, HarnessImage, Order},
};

use crate::{failure::Failure, surroundings::Surroundings, table::Table, term::Term, text::size};

const AFTER_HELP: &str = "\
npm fetches the packages, with your own npm settings (registry, proxy, certificates); nothing of them
is run. The image is made on the engine of DOCKER_HOST, or the usual socket. Workers find it there as
ozma-harness-PROVIDER:latest and mount it at /harness/PROVIDER into containers of that provider; a
command line in the environment's own image comes first.";

#[derive(Debug, Args)]
pub(crate) struct HarnessArgs {
    #[command(subcommand)]
    command: HarnessCommand,
}

#[derive(Debug, Subcommand)]
enum HarnessCommand {
    /// Make the images of these providers here, unless they are here
    #[command(after_help = AFTER_HELP)]
    Build(BuildArgs),
    /// Which images are here
    List(ListArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// All four without any
    #[arg(value_enum, value_name = "PROVIDER")]
    providers: Vec<ProviderArg>,
    /// Another version of the command line than the one this build was tried with; of one provider
    #[arg(long, value_name = "X.Y.Z")]
    version: Option<String>,
    /// Fetch and make them although they are here
    #[arg(long)]
    again: bool,
    /// Tag it with its version only, and leave `latest` as it is
    #[arg(long)]
    beside: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Those that come as packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProviderArg {
    Claude,
    Codex,
    Opencode,
    Gemini,
}

impl From<ProviderArg> for ProviderKind {
    fn from(arg: ProviderArg) -> Self {
        match arg {
            ProviderArg::Claude => Self::Claude,
            ProviderArg::Codex => Self::Codex,
            ProviderArg::Opencode => Self::Opencode,
            ProviderArg::Gemini => Self::Gemini,
        }
    }
}

pub(crate) async fn run(
    args: HarnessArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let mut worker = WorkerConfig::default();
    worker
        .overlay_env(|name| around.var(name).map(str::to_owned))
        .map_err(|error| Failure::usage(format!("{error:#}")))?;
    let host = worker.docker_host.as_deref();
    match args.command {
        HarnessCommand::Build(args) => build(args, host, term).await,
        HarnessCommand::List(args) => list(&args, host, term).await,
    }
}

async fn build(args: BuildArgs, host: Option<&str>, term: &mut Term) -> Result<(), Failure> {
    let mut providers: Vec<ProviderKind> = Vec::new();
    for provider in args.providers.iter().copied().map(ProviderKind::from) {
        if !providers.contains(&provider) {
            providers.push(provider);
        }
    }
    if args.version.is_some() && providers.len() != 1 {
        return Err(Failure::usage("--version is of one provider: name just that one"));
    }
    if providers.is_empty() {
        providers.extend(harness_image::PROVIDERS);
    }
    for provider in providers {
        let scratch = tempfile::tempdir()?;
        let order = Order {
            provider,
            version: args.version.as_deref(),
            again: args.again,
            beside: args.beside,
            scratch: scratch.path(),
        };
        let made = harness_image::build(host, order, &mut |doing| term.status(doing)).await;
        term.end_status();
        let made = made.map_err(|error| {
            Failure::platform(format!("no image for {}: {error:#}", provider.as_str()))
        })?;
        if args.json {
            term.json(&made)?;
        } else {
            let how = if made.present { "is here" } else { "was made" };
            term.line(&format!(
                "{} {how} ({}, {})",
                made.image,
                short(&made.id),
                size(made.size_bytes)
            ))?;
        }
    }
    Ok(())
}

async fn list(args: &ListArgs, host: Option<&str>, term: &mut Term) -> Result<(), Failure> {
    let images = harness_image::list(host).await.map_err(|error| {
        Failure::from(error).hint("start it, or say where it is with DOCKER_HOST")
    })?;
    if args.json {
        for image in &images {
            term.json(image)?;
        }
        return Ok(());
    }
    if images.is_empty() {
        term.note("there are none here; `ozma harness build` makes them");
        return Ok(());
    }
    let mut table = Table::new(&["PROVIDER", "VERSION", "IMAGE", "ID", "SIZE"]);
    for HarnessImage { provider, version, image, id, size_bytes, .. } in &images {
        table.row(&[
            provider.as_str().to_owned(),
            version.clone(),
            image.clone(),
            short(id),
            size(*size_bytes),
        ]);
    }
    Ok(term.table(&table)?)
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
