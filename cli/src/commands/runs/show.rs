//! `ozma runs show`, and the summary at the end of `ozma run`.

use protocol::{
    api::{artifacts::ArtifactItem, runs::RunItem},
    event::Phase,
    ids::RunId,
};

use crate::{
    client::Client,
    failure::Failure,
    render::state_style,
    term::{Style, Term},
    text::{duration, printable, size},
};

pub(crate) async fn show(
    client: &Client,
    run: &RunId,
    json: bool,
    term: &mut Term,
) -> Result<(), Failure> {
    let item: RunItem = client.get(&format!("/api/v1/agent/runs/{run}"), &[]).await?;
    if json {
        return Ok(term.json(&item)?);
    }
    for (name, value) in facts(&item) {
        let name = term.paint(Style::Dim, &format!("{name:<13}"));
        term.line(&format!("{name}{}", printable(&value)))?;
    }
    summary(&item, client.url(), term)
}

fn facts(item: &RunItem) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("run", item.run_id.to_string()),
        ("title", item.title.clone()),
        ("created", item.created_at.to_string()),
    ];
    let config = item.agent_config.as_ref();
    let optional = [
        ("started", item.started_at.map(|at| at.to_string())),
        ("environment", config.and_then(|config| config.environment_id.clone())),
        ("harness", config.and_then(|config| config.harness.as_ref()?.kind.clone())),
        ("model", config.and_then(|config| config.model_id.clone())),
        ("worker", item.worker_host.clone()),
        ("conversation", item.conversation_id.as_ref().map(ToString::to_string)),
        ("session", item.session_id.clone()),
        ("priority", (item.priority != 0).then(|| item.priority.to_string())),
        ("attempt", (item.attempt > 0).then(|| attempt(item))),
        ("waits until", item.queue_until.map(|at| format!("{at}, at the longest"))),
        ("error code", error_code(item)),
        ("exit code", item.exit_code.map(|code| code.to_string())),
        ("peak memory", item.peak_memory_bytes.map(size)),
    ];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    facts
}

/// `rate_limit`, and whether trying again may help.
fn error_code(item: &RunItem) -> Option<String> {
    let status = item.status_message.as_ref()?;
    let code = status.error_code.as_ref()?;
    let again = if status.retryable == Some(true) { " (another try may succeed)" } else { "" };
    Some(format!("{code}{again}"))
}

/// `1`, or `2 of 3` where a run has been tried again.
fn attempt(item: &RunItem) -> String {
    if item.attempt > 1 || !item.attempts.is_empty() {
        format!("{} of {}", item.attempt, item.max_attempts.max(item.attempt))
    } else {
        item.attempt.to_string()
    }
}

/// How a run stands: failed attempts, phases, artifacts, state, address.
fn summary(item: &RunItem, url: &str, term: &mut Term) -> Result<(), Failure> {
    for failed in &item.attempts {
        let (attempt, message) = (failed.attempt, &failed.message);
        let worker = failed.worker_host.iter().map(|worker| format!(" on {worker}"));
        let took = failed.assigned_at.zip(failed.ended_at);
        let took = took.map(|(from, to)| to.as_ms().saturating_sub(from.as_ms()));
        let took = took.and_then(|ms| u64::try_from(ms).ok()).into_iter();
        let took = took.map(|ms| format!(" after {}", duration(ms)));
        let detail: String = worker.chain(took).collect();
        let text = format!("attempt {attempt} failed{detail}: {message} ({})", failed.reason);
        term.line(&term.paint(Style::Warn, &printable(&text)))?;
    }
    if let Some(at) = item.next_attempt_at {
        term.line(&format!("next attempt at {at} at the earliest"))?;
    }
    for artifact in &item.artifacts {
        let name = term.paint(Style::Dim, "artifact     ");
        term.line(&format!("{name}{}", printable(&artifact_line(artifact))))?;
    }
    let state = term.paint(state_style(item.state), item.state.as_str());
    let said = item.status_message.as_ref().map(|status| printable(&status.message));
    let cancelling = if item.cancelling { " (cancelling)" } else { "" };
    let said = said.filter(|said| !said.is_empty()).map(|said| format!(": {said}"));
    term.line(&format!("{state}{cancelling}{}", said.unwrap_or_default()))?;
    closing(item, url, term)
}

/// What the events of a run have not told: the time by phase, and its address.
pub(crate) fn closing(item: &RunItem, url: &str, term: &mut Term) -> Result<(), Failure> {
    let address = format!("{url}/api/v1/agent/runs/{}", item.run_id);
    for line in phases(item).into_iter().chain([address]) {
        term.line(&term.paint(Style::Dim, &line))?;
    }
    Ok(())
}

/// `queued 12 ms · image 3 ms · …`, in the order of the phases.
fn phases(item: &RunItem) -> Option<String> {
    let parts: Vec<String> = Phase::ALL
        .into_iter()
        .filter_map(|phase| Some((phase, *item.phases.get(&phase)?)))
        .map(|(phase, ms)| format!("{} {}", phase.as_str(), duration(ms)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

fn artifact_line(artifact: &ArtifactItem) -> String {
    match artifact {
        ArtifactItem::PullRequest { data, .. } => {
            format!("pull request {} ({})", data.url, data.branch)
        }
        ArtifactItem::File { data, .. } => {
            let bytes = data.size_bytes.map(|bytes| format!(" ({})", size(bytes)));
            format!("{} {}{}", data.artifact_uid, data.filename, bytes.unwrap_or_default())
        }
    }
}
