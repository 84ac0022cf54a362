//! What a run left, in one page: a fold over its events. The plane, the command line and `ozma exec` all make
//! their `summary.json` with it, so that the three agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Exit, Phase},
    failure::FailureReason,
    ids::{ArtifactUid, ExecutionId, RunId},
    run::RunState,
};

/// The form of [`Summary`]; a field that changes its meaning raises it, a new one does not.
pub const SCHEMA_VERSION: u32 = 1;

/// Names of tools kept apart; calls of further ones are counted together as [`OTHER_TOOLS`].
pub const MAX_TOOLS: usize = 256;

/// Where calls beyond [`MAX_TOOLS`] names are counted.
pub const OTHER_TOOLS: &str = "(others)";

/// Artifacts listed; further ones set [`Summary::truncated`].
pub const MAX_ARTIFACTS: usize = 1024;

/// Bytes of a tool's or an artifact's name that are kept; the rest is cut off.
pub const MAX_NAME_BYTES: usize = 256;

/// What a summary says that is in none of the events.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub run_id: RunId,
    /// The last one; events of others do not count. `None`: every event counts.
    pub execution_id: Option<ExecutionId>,
    /// 1 for the first; 0 before any.
    pub attempt: u32,
    /// Hex SHA-256 of the prompt's bytes.
    pub prompt_sha256: String,
    /// `agent`, `claude`, …
    pub provider: String,
    /// The model asked for; what the provider says of it wins.
    pub model: Option<String>,
    /// Milliseconds by phase that no event says, such as the wait in the queue.
    pub phases: BTreeMap<Phase, u64>,
}

/// `summary.json`: what a run did, used and left, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Summary {
    /// 1.
    pub schema_version: u32,
    /// The run is over; before that everything here is as far as it came.
    pub complete: bool,
    pub run_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// What follows is of this attempt; 1 for the first, 0 before any.
    pub attempt: u32,
    /// Hex SHA-256 of the prompt.
    pub prompt_sha256: String,
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's own name for the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The scripted model answered, not a real one.
    #[serde(default)]
    pub scripted: bool,
    pub tools: BTreeMap<String, ToolCount>,
    pub tokens: Tokens,
    /// In US dollars, where the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Answers of the model.
    pub turns: u32,
    /// Times the provider asked its model again after a failure.
    pub model_retries: u32,
    /// Lines of the provider that were not understood, and kept as they came.
    pub raw_lines: u64,
    pub timings: Timings,
    /// Absent while the run is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Ended>,
    pub artifacts: Vec<Left>,
    /// A bound left something out, of the events or of this summary.
    #[serde(default)]
    pub truncated: bool,
}

/// How often a tool was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolCount {
    pub calls: u64,
    pub ok: u64,
    /// Neither `ok` nor `failed`: no result came.
    pub failed: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tokens {
    /// All that went in, what came from a cache included.
    pub input: u64,
    pub output: u64,
    /// Of the input, what came from the vendor's cache.
    pub cached_input: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timings {
    /// Milliseconds since 1970 of the run's first event and of its last.
    pub began_at_ms: i64,
    pub ended_at_ms: i64,
    /// From the one to the other, all attempts and waits included.
    pub total_ms: u64,
    /// Milliseconds by phase, of this attempt.
    pub phases: BTreeMap<Phase, u64>,
}

/// How the run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ended {
    pub success: bool,
    /// The provider's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Why not: one of the failure reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<FailureReason>,
    pub message: String,
}

/// Something the run left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Left {
    pub artifact_uid: ArtifactUid,
    /// `FILE` or `PULL_REQUEST`.
    pub artifact_type: String,
    /// The file's name, or the pull request's address.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Hex SHA-256 of the file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Makes a [`Summary`] from events, one after the other in their order; it keeps a bounded part of them.
#[derive(Debug, Clone)]
pub struct Fold {
    execution: Option<ExecutionId>,
    summary: Summary,
    began: bool,
    exit: Option<Exit>,
    /// The plane's own word on the end, which stands above the sidecar's.
    end: Option<(RunState, Option<FailureReason>, Option<String>)>,
}

impl Fold {
    pub fn new(facts: Facts) -> Self {
        let Facts { run_id, execution_id, attempt, prompt_sha256, provider, model, phases } = facts;
        let summary = Summary {
            schema_version: SCHEMA_VERSION,
            complete: false,
            run_id,
            execution_id: execution_id.clone(),
            attempt,
            prompt_sha256,
            provider,
            model,
            session_id: None,
            scripted: false,
            tools: BTreeMap::new(),
            tokens: Tokens::default(),
            cost_usd: None,
            turns: 0,
            model_retries: 0,
            raw_lines: 0,
            timings: Timings { phases, ..Timings::default() },
            exit: None,
            artifacts: Vec::new(),
            truncated: false,
        };
        Self { execution: execution_id, summary, began: false, exit: None, end: None }
    }

    /// Takes one event in. `execution` is the one it is of, `None` for what is said of the whole run; `at_ms` is its
    /// time in milliseconds since 1970; `event` is `None` for a kind this build does not know.
    pub fn see(&mut self, execution: Option<&ExecutionId>, at_ms: i64, event: Option<&Event>) {
        self.time(at_ms);
        let other = matches!((&self.execution, execution), (Some(ours), Some(its)) if ours != its);
        if let Some(event) = event.filter(|_| !other) {
            self.take(event);
        }
    }

    /// The summary of what was seen; `complete` is whether the run is over.
    pub fn finish(mut self, complete: bool) -> Summary {
        self.summary.complete = complete;
        if complete {
            self.summary.exit = Some(ended(self.exit, self.end));
        }
        self.summary
    }

    fn time(&mut self, at_ms: i64) {
        let timings = &mut self.summary.timings;
        if self.began {
            timings.began_at_ms = timings.began_at_ms.min(at_ms);
            timings.ended_at_ms = timings.ended_at_ms.max(at_ms);
        } else {
            self.began = true;
            (timings.began_at_ms, timings.ended_at_ms) = (at_ms, at_ms);
        }
        timings.total_ms = timings.ended_at_ms.abs_diff(timings.began_at_ms);
    }

    fn take(&mut self, event: &Event) {
        let summary = &mut self.summary;
        match event {
            Event::State { state, reason, message, .. } => {
                self.end = state.is_terminal().then(|| (*state, *reason, message.clone()));
            }
            Event::PhaseFinished { phase, duration_ms, .. } => {
                summary.timings.phases.insert(*phase, *duration_ms);
            }
            Event::Model { model, scripted, .. } => {
                summary.model = Some(cut(model));
                summary.scripted |= scripted;
            }
            Event::Text { scripted, .. } | Event::Answer { scripted, .. } => {
                summary.scripted |= scripted;
            }
            Event::ToolCall { name, scripted, .. } => {
                summary.scripted |= scripted;
                self.tool(name).calls += 1;
            }
            Event::ToolResult { name, ok, scripted, .. } => {
                summary.scripted |= scripted;
                let count = self.tool(name);
                *if *ok { &mut count.ok } else { &mut count.failed } += 1;
            }
            Event::Session { session_id, .. } => summary.session_id = Some(cut(session_id)),
            Event::ModelRetry { .. } => {
                summary.model_retries = summary.model_retries.saturating_add(1);
            }
            Event::Raw { truncated, .. } => {
                summary.raw_lines += 1;
                summary.truncated |= truncated;
            }
            Event::Usage {
                input_tokens,
                output_tokens,
                cached_input_tokens,
                turns,
                cost_usd,
                scripted,
            } => {
                // Each says how much it was so far.
                summary.tokens = Tokens {
                    input: *input_tokens,
                    output: *output_tokens,
                    cached_input: *cached_input_tokens,
                };
                summary.turns = *turns;
                summary.cost_usd = cost_usd.filter(|cost| cost.is_finite()).or(summary.cost_usd);
                summary.scripted |= scripted;
            }
            Event::Truncated { .. } => summary.truncated = true,
            Event::Artifact(artifact) if summary.artifacts.len() < MAX_ARTIFACTS => {
                let name = [&artifact.filename, &artifact.url].into_iter().flatten().next();
                summary.artifacts.push(Left {
                    artifact_uid: artifact.artifact_uid.clone(),
                    artifact_type: artifact.artifact_type.clone(),
                    name: name.map(|name| cut(name)).unwrap_or_default(),
                    bytes: artifact.size_bytes,
                    sha256: artifact.sha256.clone(),
                });
            }
            Event::Artifact(_) => summary.truncated = true,
            Event::Exit(exit) => self.exit = Some(exit.clone()),
            Event::PhaseStarted { .. }
            | Event::ImageProgress { .. }
            | Event::Cloned { .. }
            | Event::SetupStarted { .. }
            | Event::SetupFinished { .. }
            | Event::Output { .. }
            | Event::Notice { .. }
            | Event::ArtifactPart { .. } => {}
        }
    }

    fn tool(&mut self, name: &str) -> &mut ToolCount {
        let summary = &mut self.summary;
        let mut name = cut(name);
        if summary.tools.len() >= MAX_TOOLS && !summary.tools.contains_key(&name) {
            summary.truncated = true;
            OTHER_TOOLS.clone_into(&mut name);
        }
        summary.tools.entry(name).or_default()
    }
}

fn ended(
    exit: Option<Exit>,
    end: Option<(RunState, Option<FailureReason>, Option<String>)>,
) -> Ended {
    let exit = exit.unwrap_or_default();
    match end {
        Some((state, reason, message)) => {
            let success = state == RunState::Succeeded;
            let reason = reason.or(exit.reason).filter(|_| !success);
            let message = message.unwrap_or(exit.message);
            Ended { success, code: exit.exit_code, reason, message }
        }
        None => Ended {
            success: exit.success,
            code: exit.exit_code,
            reason: exit.reason.filter(|_| !exit.success),
            message: exit.message,
        },
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
