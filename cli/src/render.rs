//! Events as lines for people. Everything a container or a model said is made safe for a terminal here.

use protocol::{
    event::{Artifact, Event, Exit, Stream},
    run::RunState,
};
use serde_json::Value;

use crate::{
    term::{Style, Term},
    text::{duration, printable, shorten, size},
};

/// Lines of a tool's result that are shown; the rest is counted. `--json` has all of it.
const MAX_RESULT_LINES: usize = 12;

/// Longest line of a tool's input or result, in characters.
const MAX_LINE: usize = 400;

/// The lines for one event; none for what only moves the status line.
pub(crate) fn lines(term: &Term, event: &Event) -> Vec<String> {
    let dim = |text: &str| term.paint(Style::Dim, text);
    match event {
        Event::State { state, attempt, message, worker_id, cancelling, .. } => {
            // Why the last attempt failed is news when it ends or goes back, and an echo on the way.
            let news = state.is_terminal() || *state == RunState::Queued;
            let message = message.as_ref().filter(|_| news);
            let parts = [
                Some(term.paint(state_style(*state), &format!("● {state}"))),
                worker_id.as_ref().map(|worker| format!(" on {}", printable(worker))),
                (*attempt > 1).then(|| format!(" (attempt {attempt})")),
                cancelling.then(|| " (cancelling)".to_owned()),
                message.map(|message| format!(": {}", printable(message))),
            ];
            vec![parts.into_iter().flatten().collect()]
        }
        Event::PhaseFinished { phase, duration_ms, ok } => {
            let (mark, style) = if *ok { ("✓", Style::Good) } else { ("✗", Style::Bad) };
            let took = dim(&duration(*duration_ms));
            vec![format!("{} {} {took}", term.paint(style, mark), phase.as_str())]
        }
        Event::Cloned { url, path, commit, .. } => {
            let commit: String = commit.chars().take(12).collect();
            vec![format!("  cloned {} at {} into {}", safe(url), safe(&commit), safe(path))]
        }
        Event::SetupStarted { command, .. } => indented("  $ ", command, MAX_RESULT_LINES)
            .map(|l| term.paint(Style::Bold, &l))
            .collect(),
        Event::SetupFinished { exit_code: 0, .. } => Vec::new(),
        Event::SetupFinished { exit_code, duration_ms, .. } => {
            let text = format!("  exit code {exit_code} after {}", duration(*duration_ms));
            vec![term.paint(Style::Bad, &text)]
        }
        Event::Output { stream, text, base64, partial, .. } => {
            let text = match (text, base64) {
                (Some(text), _) => printable(text.trim_end_matches(['\n', '\r'])),
                (None, Some(base64)) => format!("(binary, {} bytes)", base64.len() / 4 * 3),
                (None, None) => String::new(),
            };
            let style = if *stream == Stream::Stderr { Style::Warn } else { Style::Dim };
            let more = if *partial { "…" } else { "" };
            vec![format!("{} {text}{more}", term.paint(style, "  │"))]
        }
        Event::Model { model, scripted: true, .. } => {
            vec![term.paint(Style::Warn, &format!("  scripted model, no AI: {}", safe(model)))]
        }
        Event::Model { dialect, model, .. } => {
            vec![dim(&format!("  model {} ({})", safe(model), safe(dialect)))]
        }
        Event::Text { text, scripted } => {
            marked(term, *scripted, indented("  ", text, usize::MAX).collect())
        }
        Event::ToolCall { name, input, scripted, .. } => {
            let call: Vec<String> = indented("  → ", &call(name, input), MAX_RESULT_LINES)
                .map(|line| term.paint(Style::Accent, &line))
                .collect();
            marked(term, *scripted, call)
        }
        Event::ToolResult { ok, output, duration_ms, truncated, .. } => {
            result(term, *ok, output, *duration_ms, *truncated)
        }
        Event::Answer { text, scripted } => {
            let body = indented("  ", text, usize::MAX).map(|l| term.paint(Style::Bold, &l));
            marked(term, *scripted, body.collect())
        }
        Event::Session { provider, session_id } => {
            vec![dim(&format!("  session {} ({})", safe(session_id), safe(provider)))]
        }
        Event::Notice { text } => vec![term.paint(Style::Warn, &format!("  note: {}", safe(text)))],
        Event::ModelRetry { attempt, wait_ms, message } => {
            let wait = wait_ms.map(|ms| format!(" in {}", duration(ms))).unwrap_or_default();
            let text = format!("  model asked again{wait} (try {attempt}): {}", safe(message));
            vec![term.paint(Style::Warn, &text)]
        }
        Event::Truncated { what, limit } => {
            let text = format!("  left out: {} reached its limit of {limit}", safe(what));
            vec![term.paint(Style::Warn, &text)]
        }
        Event::Artifact(artifact) => vec![format!("  {}", self::artifact(artifact))],
        Event::Exit(exit) => self::exit(term, exit),
        Event::PhaseStarted { .. }
        | Event::ImageProgress { .. }
        | Event::Raw { .. }
        | Event::Usage { .. }
        | Event::ArtifactPart { .. } => Vec::new(),
    }
}

/// The colour of a state.
pub(crate) fn state_style(state: RunState) -> Style {
    match state {
        RunState::Succeeded => Style::Good,
        RunState::Failed | RunState::Error => Style::Bad,
        RunState::Blocked | RunState::Cancelled => Style::Warn,
        RunState::Queued | RunState::Pending | RunState::Claimed | RunState::Inprogress => {
            Style::Accent
        }
    }
}

fn safe(text: &str) -> String {
    shorten(&printable(text), MAX_LINE)
}

/// The lines of `text`, the first behind `lead`, the others as deep.
fn indented(lead: &str, text: &str, max: usize) -> impl Iterator<Item = String> {
    let deep = " ".repeat(lead.chars().count());
    let all: Vec<&str> = text.trim_end().lines().collect();
    let left_out = all.len().saturating_sub(max);
    let more = (left_out > 0).then(|| format!("{deep}… {left_out} more lines"));
    let shown: Vec<String> = all
        .iter()
        .take(max)
        .enumerate()
        .map(|(i, line)| format!("{}{}", if i == 0 { lead } else { &deep }, printable(line)))
        .collect();
    shown.into_iter().chain(more)
}

/// What the scripted model says carries its mark, so that nobody takes it for an answer.
fn marked(term: &Term, scripted: bool, mut lines: Vec<String>) -> Vec<String> {
    if scripted && let Some(first) = lines.first_mut() {
        first.push_str(&term.paint(Style::Dim, "  [scripted]"));
    }
    lines
}

fn call(name: &str, input: &Value) -> String {
    let field = |name: &str| input.get(name).and_then(Value::as_str);
    let told = match name {
        "shell" => field("command").map(str::to_owned),
        "read_file" | "write_file" | "edit_file" => field("path").map(str::to_owned),
        _ => None,
    };
    format!("{name} {}", told.unwrap_or_else(|| shorten(&input.to_string(), MAX_LINE)))
}

fn result(term: &Term, ok: bool, output: &str, duration_ms: u64, truncated: bool) -> Vec<String> {
    let (word, style) = if ok { ("ok", Style::Good) } else { ("failed", Style::Bad) };
    let cut = if truncated { ", cut" } else { "" };
    let head = format!("  ← {word}{cut}");
    let mut lines = vec![format!(
        "{} {}",
        term.paint(style, &head),
        term.paint(Style::Dim, &duration(duration_ms))
    )];
    lines.extend(
        indented("    ", output, MAX_RESULT_LINES)
            .map(|line| term.paint(Style::Dim, &shorten(&line, MAX_LINE))),
    );
    lines
}

fn artifact(artifact: &Artifact) -> String {
    let name = artifact.filename.as_deref().or(artifact.url.as_deref()).unwrap_or("?");
    let bytes = artifact.size_bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
    let kind = artifact.artifact_type.to_lowercase().replace('_', " ");
    format!("artifact {} ({}{bytes}) {}", safe(name), safe(&kind), artifact.artifact_uid)
}

/// The message is left to the state that follows.
fn exit(term: &Term, exit: &Exit) -> Vec<String> {
    let facts = [
        exit.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}")),
        exit.oom_killed.then(|| "out of memory".to_owned()),
        exit.peak_memory_bytes.map(|bytes| format!("peak memory {}", size(bytes))),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    if facts.is_empty() {
        return Vec::new();
    }
    vec![term.paint(Style::Dim, &format!("  {}", facts.join(", ")))]
}

#[cfg(test)]
mod tests;
