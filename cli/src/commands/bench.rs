//! `ozma bench`: measures this machine, so that anyone can repeat the numbers of `docs/PERFORMANCE.md`. It starts a
//! plane for each part, drives it over real sockets, and reads back what it counted before it says a number.

mod compare;
mod container;
mod database;
mod dispatch;
mod engine;
mod events;
mod fairness;
mod http;
mod idle;
mod lifecycles;
mod link;
mod load;
mod machine;
mod memory;
mod pace;
mod parts;
mod plane;
mod process;
mod report;
mod requeue;
mod show;
mod stats;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{
    failure::{Failure, code},
    interrupts::Interrupts,
    surroundings::Surroundings,
    term::Term,
};

const AFTER_HELP: &str = "\
Starts everything it needs in a folder that is removed afterwards. PostgreSQL: a private server from
Debian's binaries, durable as initdb makes it, unless --database-url names one on which databases may be
made. The parts with containers need an engine, the sidecar's image and an image with a shell. What
cannot be measured is left out, and said. The client and the plane share this machine's processors.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct BenchArgs {
    /// Only these parts (by commas)
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// What the plane stores in
    #[arg(long, value_name = "KIND", value_enum, default_value = "both")]
    database: Kind,
    /// A PostgreSQL server to use instead of a private one: postgres://user@host:port
    #[arg(long, value_name = "URL", env = "OZMA_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A look instead of a measurement: short, and with fewer workers and containers
    #[arg(long)]
    quick: bool,
    /// Runs a second of the dispatch part
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Seconds of each part with a duration [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// Idle workers; the file limit may allow fewer [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    workers: Option<u32>,
    /// Cold containers of each kind [default: 15]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=1_000))]
    containers: Option<u32>,
    /// The image of the containers; it needs /bin/sh
    #[arg(long, value_name = "IMAGE", default_value = "ozma-base:bookworm")]
    image: String,
    /// The same lifecycles on plain job queues beside ours, on the same PostgreSQL
    #[arg(long)]
    compare: bool,
    /// Where the job queue of the comparison is installed
    #[arg(long, value_name = "FOLDER", default_value = "compose/bench")]
    queue_folder: PathBuf,
    /// Below which folder everything is stored, which decides the disk; the system's temporary one without it
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The program whose plane is measured, to compare two builds; this one without it
    #[arg(long, value_name = "FILE", hide = true)]
    plane_program: Option<PathBuf>,
    /// One JSON object
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Tables for a document
    #[arg(long)]
    markdown: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From the answer to the assignment, at a fixed rate
    Dispatch,
    /// Whole lives of runs a second
    Lifecycles,
    /// Events a second
    Events,
    /// Memory of idle workers in the plane
    Workers,
    /// From the loss of a worker to the next one
    Requeue,
    /// One tenant's flood and another's wait
    Fairness,
    /// Cold containers against bare ones
    Containers,
    /// Idle processes
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Sqlite,
    Postgres,
    Both,
}

pub(crate) async fn run(
    args: BenchArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    service::logging::start("error")?;
    let mut interrupts = Interrupts::new()?;
    let (json, markdown) = (args.json, args.markdown);
    // Dropped, a part ends its processes and removes its folders and databases.
    let (report, failed) = tokio::select! {
        measured = parts::measure(&args, around, term) => measured?,
        () = interrupts.next() => return Err(Failure::quiet(code::CANCELLED)),
    };
    term.end_status();
    if json {
        term.json(&report)?;
    } else if markdown {
        show::markdown(&report, term)?;
    } else {
        show::tables(&report, term)?;
    }
    if failed { Err(Failure::platform("a part failed; the list says which")) } else { Ok(()) }
}
