//! A run that was just made, to its end: its events, its outcome, its evidence. What `ozma run` and
//! `ozma runs followup` share.

use std::{path::Path, time::Duration};

use clap::Args;
use protocol::{api::runs::RunItem, ids::RunId};
use serde::Serialize;

use crate::{
    client::Client,
    commands::runs::show,
    evidence::Evidence,
    failure::{Failure, code},
    follow::{Options, follow},
    interrupts::Interrupts,
    outcome,
    term::{Style, Term},
};

/// Silence for this long in the middle of a download is a broken connection.
const SILENCE: Duration = Duration::from_secs(45);

/// How a run is watched.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Attend {
    /// Print the run's id and leave it running
    #[arg(long)]
    no_follow: bool,
    /// One JSON object a line: every event, then the outcome
    #[arg(long)]
    json: bool,
    /// Keep events.jsonl and summary.json below .workbench/runs, in a folder named as the run
    #[arg(long, conflicts_with = "no_follow")]
    evidence: bool,
}

/// A run that was just made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'a> {
    pub run_id: &'a RunId,
    pub at_capacity: bool,
}

impl Attend {
    /// Watches the run, unless it is to be left; `answer` is what the plane said of its making.
    ///
    /// # Errors
    /// The run did not succeed, the user left, or the plane stays away.
    pub(crate) async fn watch(
        self,
        client: &Client,
        made: Made<'_>,
        answer: &impl Serialize,
        interrupts: &mut Interrupts,
        term: &mut Term,
    ) -> Result<(), Failure> {
        let id = made.run_id.as_str();
        if self.no_follow {
            if self.json {
                term.json(answer)?;
            } else {
                term.line(id)?;
            }
            return Ok(());
        }
        if !self.json {
            term.line(&term.paint(Style::Dim, &format!("run {id}")))?;
            if made.at_capacity {
                term.note("no worker has room for it now; it waits in the queue (`ozma worker` starts another)");
            }
        }
        let options = Options { json: self.json, cancels: true };
        let state = follow(client, id, options, interrupts, term).await?;
        let exit_code = outcome::exit_code(state);
        let item: RunItem = client.get(&format!("/api/v1/agent/runs/{id}"), &[]).await?;
        let kept =
            if self.evidence { keep(client, made.run_id, interrupts, term).await } else { None };
        if self.json {
            let mut outcome = serde_json::json!({
                "kind": "outcome", "run_id": id, "state": state, "exit_code": exit_code, "run": item,
            });
            if let Some(folder) = kept {
                outcome["evidence"] = folder.into();
            }
            term.json(&outcome)?;
        } else {
            if let Some(folder) = kept {
                term.line(&term.paint(Style::Dim, &format!("evidence in {folder}")))?;
            }
            show::closing(&item, client.url(), term)?;
        }
        if exit_code == code::SUCCESS { Ok(()) } else { Err(Failure::quiet(exit_code)) }
    }
}

/// Downloads a run's evidence into the project one stands in; the folder. The run is over and has its own outcome:
/// what goes wrong here is told, and changes nothing of that.
async fn keep(
    client: &Client,
    run: &RunId,
    interrupts: &mut Interrupts,
    term: &mut Term,
) -> Option<String> {
    let kept = tokio::select! {
        kept = download(client, run) => kept,
        () = interrupts.next() => Err(Failure::platform("interrupted")),
    };
    match kept {
        Ok((folder, whole)) => {
            if !whole {
                term.note("events.jsonl is full: further events are left out of it");
            }
            Some(folder)
        }
        Err(failure) => {
            term.note(&format!(
                "there is no whole evidence here: {}; `ozma runs logs --json {run}` has the events too",
                failure.message
            ));
            None
        }
    }
}

/// The folder, and whether all events are in it.
async fn download(client: &Client, run: &RunId) -> Result<(String, bool), Failure> {
    let path = format!("/api/v1/agent/runs/{run}/evidence");
    let mut evidence = Evidence::begin(Path::new("."), run)?;
    let mut events = client.download(&format!("{path}/events.jsonl")).await?;
    let mut whole = true;
    loop {
        let chunk = tokio::time::timeout(SILENCE, events.chunk())
            .await
            .map_err(|_| Failure::platform("the plane stopped in the middle of the events"))?
            .map_err(|error| Failure::platform(format!("the events broke off: {error}")))?;
        let Some(chunk) = chunk else { break };
        whole = evidence.bytes(&chunk)?;
        if !whole {
            break;
        }
    }
    let mut summary: serde_json::Value = client.get(&format!("{path}/summary.json"), &[]).await?;
    if !whole {
        summary["truncated"] = true.into();
    }
    evidence.summary(&summary)?;
    Ok((evidence.folder().display().to_string(), whole))
}
