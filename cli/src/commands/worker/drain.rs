//! `ozma worker drain` and `resume`: whether a worker takes anything new, said to its plane.

use std::time::Duration;

use clap::Args;
use protocol::{
    api::workers::{DrainView, WorkerList},
    ids::WorkerId,
};

use crate::{
    client::{Client, segment},
    connection::AdminConnection,
    failure::Failure,
    surroundings::Surroundings,
    term::Term,
};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    connection: AdminConnection,
    /// The worker's name
    worker: WorkerId,
    /// Come back when nothing runs there any more
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    connection: AdminConnection,
    /// The worker's name
    worker: WorkerId,
}

pub(crate) async fn drain(
    args: DrainArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    let worker = &args.worker;
    let drain: DrainView = client.post(&path(worker), &serde_json::json!({})).await?;
    let list: WorkerList = client.get("/api/v1/workers", &[]).await?;
    if !list.workers.iter().any(|one| one.worker_id == *worker) {
        term.note(&format!("worker {worker} is not connected; when it comes it gets nothing"));
    }
    if !args.wait {
        let running = drain.running;
        return Ok(term.line(&format!("{worker} takes nothing new; {running} still running"))?);
    }
    wait(&client, worker, drain.running, term).await
}

/// Until nothing runs there any more.
async fn wait(
    client: &Client,
    worker: &WorkerId,
    mut running: u32,
    term: &mut Term,
) -> Result<(), Failure> {
    while running > 0 {
        term.status(&format!("{worker} takes nothing new; {running} still running"));
        // Nothing tells when an execution ends somewhere: looked at now and then, for as long as the runs take.
        tokio::time::sleep(LOOK_EVERY).await;
        let list: WorkerList = match client.get("/api/v1/workers", &[]).await {
            Ok(list) => list,
            // A plane that restarts meanwhile changes nothing.
            Err(failure) if failure.passing() => continue,
            Err(failure) => return Err(failure),
        };
        let Some(drain) = list.drained.into_iter().find(|one| one.worker_id == *worker) else {
            term.end_status();
            return Err(Failure::usage(format!("worker {worker} was resumed meanwhile")));
        };
        running = drain.running;
    }
    term.end_status();
    Ok(term.line(&format!("{worker} takes nothing new and runs nothing"))?)
}

pub(crate) async fn resume(
    args: ResumeArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    client.delete(&path(&args.worker)).await?;
    Ok(term.line(&format!("{} takes work again", args.worker))?)
}

fn path(worker: &WorkerId) -> String {
    format!("/api/v1/workers/{}/drain", segment(worker.as_str()))
}
