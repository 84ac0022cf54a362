//! `ozma bench`: measures this machine, so that anyone can repeat the numbers of `docs/PERFORMANCE.md`. Times are
//! wall-clock; those that depend on the machine are given as a ratio to something bare, measured in the same run.

mod container;
mod engine;
mod handover;
mod memory;
mod stats;

use clap::Args;
use serde::Serialize;

use crate::{
    failure::Failure,
    interrupts::Interrupts,
    surroundings::Surroundings,
    table::Table,
    term::{Style, Term},
    text::size,
};
use stats::Spread;

const AFTER_HELP: &str = "\
Starts everything it needs in a folder that is removed afterwards. The parts with containers need
an engine, the sidecar's image and an image with a shell; without them they are left out.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BenchArgs {
    /// Runs handed over, one after the other and then many at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    runs: u32,
    /// Cold containers of each kind
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1_000))]
    containers: u32,
    /// The image of the containers; it needs /bin/sh
    #[arg(long, value_name = "IMAGE", default_value = "ozma-base:bookworm")]
    image: String,
    /// Leave the containers out
    #[arg(long)]
    no_containers: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// A build without optimisation is slower.
    optimised: bool,
    cores: usize,
    handover: handover::Handover,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<container::Cold>,
    memory: memory::Memory,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar_image_bytes: Option<u64>,
    /// What was left out, and why.
    left_out: Vec<String>,
}

pub(crate) async fn run(
    args: BenchArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    service::logging::start("error")?;
    let mut interrupts = Interrupts::new()?;
    let report = tokio::select! {
        report = measure(&args, around, term) => report?,
        () = interrupts.next() => return Err(Failure::quiet(crate::failure::code::CANCELLED)),
    };
    term.end_status();
    if args.json { Ok(term.json(&report)?) } else { show(&report, term) }
}

async fn measure(
    args: &BenchArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<Report, Failure> {
    let mut left_out = Vec::new();
    term.status("handing runs over");
    let handover = handover::measure(args.runs).await?;

    let engine = if args.no_containers { None } else { engine::Engine::of(around) };
    let mut container = None;
    match &engine {
        None => left_out.push("containers: no engine on a unix socket, or not wanted".to_owned()),
        Some(engine) => {
            match container::measure(engine, &args.image, args.containers, around, term).await {
                Ok(cold) => container = Some(cold),
                Err(failure) => left_out.push(format!("containers: {}", failure.message)),
            }
        }
    }
    term.status("letting a plane and a worker idle");
    let memory = memory::measure(around).await?;
    if memory.worker_bytes.is_none() {
        left_out.push("the worker's memory: it does not start here".to_owned());
    }
    let sidecar_image_bytes = match &engine {
        Some(engine) => engine.image_bytes(&worker::Config::default().sidecar_image).await,
        None => None,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let optimised = !cfg!(debug_assertions);
    Ok(Report { optimised, cores, handover, container, memory, sidecar_image_bytes, left_out })
}

fn show(report: &Report, term: &mut Term) -> Result<(), Failure> {
    let mut table = Table::new(&["MEASURED", "P50", "P95", "P99", "OVER"]);
    let mut spread = |name: &str, spread: &Spread| {
        let [p50, p95, p99] = [spread.p50_ms, spread.p95_ms, spread.p99_ms];
        table.row(&[name.to_owned(), ms(p50), ms(p95), ms(p99), spread.count.to_string()]);
    };
    spread("request → assignment, one at a time", &report.handover.one_at_a_time);
    let many = format!("request → assignment, {} at once", report.handover.at_once);
    spread(&many, &report.handover.many);
    if let Some(cold) = &report.container {
        spread("assignment → first event, cold container", &cold.ours);
        spread("bare create + start + first output", &cold.bare);
    }
    term.table(&table)?;
    term.line("")?;
    let mut fact = |name: &str, value: String| term.line(&format!("{name:<44}{value}"));
    if let Some(cold) = &report.container {
        fact("cold container, ratio of medians to bare", format!("{:.2}", cold.ratio))?;
    }
    fact("memory of an idle plane", size(report.memory.plane_bytes))?;
    if let Some(bytes) = report.memory.worker_bytes {
        fact("memory of an idle worker", size(bytes))?;
    }
    if let Some(bytes) = report.sidecar_image_bytes {
        fact("size of the sidecar's image", size(bytes))?;
    }
    fact("cores", report.cores.to_string())?;
    for left_out in &report.left_out {
        term.line(&term.paint(Style::Warn, &format!("left out: {left_out}")))?;
    }
    if !report.optimised {
        let text =
            "this is a build without optimisation; `cargo build --release` gives the real numbers";
        term.line(&term.paint(Style::Warn, text))?;
    }
    Ok(())
}

fn ms(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}
