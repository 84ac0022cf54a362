//! A run that was just made, to its end: its events, its outcome, its evidence. What `ozma run` and
//! `ozma runs followup` share.

use std::path::Path;

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
        let kept = if self.evidence { Some(keep(client, made.run_id, term).await?) } else { None };
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

/// Downloads a run's evidence into the project one stands in; the folder.
async fn keep(client: &Client, run: &RunId, term: &mut Term) -> Result<String, Failure> {
    let path = format!("/api/v1/agent/runs/{run}/evidence");
    let mut evidence = Evidence::begin(Path::new("."), run)?;
    let mut events = client.download(&format!("{path}/events.jsonl")).await?;
    loop {
        let chunk = events.chunk().await.map_err(|error| {
            Failure::platform(format!("the events of run {run} broke off: {error}"))
                .hint(format!("the run itself is over; `ozma runs logs --json {run}` has them too"))
        })?;
        let Some(chunk) = chunk else { break };
        if !evidence.bytes(&chunk)? {
            term.note("events.jsonl is full: further events are left out of it");
            break;
        }
    }
    let summary: serde_json::Value = client.get(&format!("{path}/summary.json"), &[]).await?;
    evidence.summary(&summary)?;
    Ok(evidence.folder().display().to_string())
}
