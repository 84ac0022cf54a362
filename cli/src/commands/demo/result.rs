//! What stays on the screen after the demo: the patch, the time by phase, the address.

use std::path::Path;

use protocol::{
    api::{artifacts::ArtifactItem, runs::RunItem},
    event::Phase,
    ids::RunId,
};

use crate::{
    client::Client,
    failure::Failure,
    outcome,
    render::state_style,
    table::Table,
    term::{Style, Term},
    text::{duration, printable},
};

/// Lines of a patch that are shown; all of it is an artifact.
const MAX_PATCH_LINES: usize = 80;

pub(crate) async fn show(
    client: &Client,
    run: &RunId,
    json: bool,
    term: &mut Term,
) -> Result<(), Failure> {
    let item: RunItem = client.get(&format!("/api/v1/agent/runs/{run}"), &[]).await?;
    let url = format!("{}/api/v1/agent/runs/{run}", client.url());
    if json {
        let exit_code = outcome::exit_code(item.state);
        let state = item.state;
        let line = serde_json::json!({
            "kind": "outcome", "run_id": run, "state": state, "exit_code": exit_code, "url": url, "run": item,
        });
        return Ok(term.json(&line)?);
    }
    for artifact in &item.artifacts {
        let ArtifactItem::File { data, .. } = artifact else { continue };
        let kind = Path::new(&data.filename).extension();
        if !kind.is_some_and(|kind| kind == "patch" || kind == "diff") {
            continue;
        }
        let path = format!("/api/v1/agent/artifacts/{}/content", data.artifact_uid);
        let content = client.bytes(&path).await?;
        heading(&printable(&data.filename), term)?;
        patch(&String::from_utf8_lossy(&content), term)?;
    }
    heading("time by phase", term)?;
    timings(&item, term)?;
    term.line("")?;
    let state = term.paint(state_style(item.state), item.state.as_str());
    let said = item.status_message.as_ref().map(|status| printable(&status.message));
    term.line(&format!("{state} {}", said.unwrap_or_default()))?;
    term.line(&url)?;
    Ok(())
}

fn heading(text: &str, term: &mut Term) -> Result<(), Failure> {
    term.line("")?;
    Ok(term.line(&term.paint(Style::Bold, text))?)
}

fn patch(text: &str, term: &mut Term) -> Result<(), Failure> {
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().take(MAX_PATCH_LINES) {
        let shown = printable(line);
        let shown = match line.as_bytes().first() {
            Some(b'+') => term.paint(Style::Good, &shown),
            Some(b'-') => term.paint(Style::Bad, &shown),
            Some(b'@') => term.paint(Style::Accent, &shown),
            _ => shown,
        };
        term.line(&shown)?;
    }
    let left_out = lines.len().saturating_sub(MAX_PATCH_LINES);
    if left_out > 0 {
        term.line(&term.paint(Style::Dim, &format!("… {left_out} more lines")))?;
    }
    Ok(())
}

fn timings(item: &RunItem, term: &mut Term) -> Result<(), Failure> {
    let mut table = Table::new(&["PHASE", "TIME"]);
    for phase in Phase::ALL {
        if let Some(ms) = item.phases.get(&phase) {
            table.row(&[phase.as_str().to_owned(), duration(*ms)]);
        }
    }
    let total: u64 = item.phases.values().sum();
    table.row(&["total".to_owned(), duration(total)]);
    Ok(term.table(&table)?)
}
