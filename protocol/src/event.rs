//! What happens during a run, as its watchers see it: numbered events, each one JSON object.
//!
//! The sidecar numbers what it sees, the worker what it sees, each from 1; the plane puts both into one
//! sequence for the run, again from 1 and without gaps. Whoever only hands events on keeps them as
//! [`EventLine`] and never looks inside.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{failure::FailureReason, ids::ArtifactUid};

/// One event as it travels: number, time, kind, and data nobody in between reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventLine {
    /// From 1, without gaps, within one execution and source.
    pub seq: u64,
    /// Milliseconds since 1970, by the clock of the source.
    pub at_ms: i64,
    pub kind: String,
    pub data: Box<RawValue>,
}

impl EventLine {
    /// # Panics
    /// Never: every body is plain data and serialises.
    pub fn new(seq: u64, at_ms: i64, body: &Event) -> Self {
        #[derive(Deserialize)]
        struct Split {
            kind: String,
            data: Box<RawValue>,
        }
        let text = serde_json::to_string(body).expect("an event is plain data");
        let split: Split = serde_json::from_str(&text).expect("an event has kind and data");
        Self { seq, at_ms, kind: split.kind, data: split.data }
    }

    /// The event itself; `None` for a kind or a form this build does not know.
    pub fn event(&self) -> Option<Event> {
        #[derive(Serialize)]
        struct Join<'a> {
            kind: &'a str,
            data: &'a RawValue,
        }
        let text = serde_json::to_string(&Join { kind: &self.kind, data: &self.data }).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// Who numbered an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSource {
    Worker,
    Sidecar,
}

impl EventSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Sidecar => "sidecar",
        }
    }
}

/// The parts a run's time is spent in, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// From the request to the hand-over to a worker.
    Queued,
    /// Having the image.
    Image,
    /// From the container's creation to the sidecar's first word.
    Container,
    Clone,
    Setup,
    Provider,
    /// Patch, files, pull requests.
    Collect,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Image,
        Self::Container,
        Self::Clone,
        Self::Setup,
        Self::Provider,
        Self::Collect,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Image => "image",
            Self::Container => "container",
            Self::Clone => "clone",
            Self::Setup => "setup",
            Self::Provider => "provider",
            Self::Collect => "collect",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Everything a watcher can see. `scripted` marks what comes from the scripted model, so that nobody takes it
/// for a model's answer; it is absent when false.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// The run changed its state. From the plane.
    State {
        state: crate::run::RunState,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<FailureReason>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker_id: Option<String>,
        #[serde(default, skip_serializing_if = "is_false")]
        cancelling: bool,
    },
    /// A phase began.
    PhaseStarted {
        phase: Phase,
    },
    /// A phase ended, well or not.
    PhaseFinished {
        phase: Phase,
        duration_ms: u64,
        ok: bool,
    },
    /// Progress of an image pull. From the worker.
    ImageProgress {
        image: String,
        status: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_bytes: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total_bytes: Option<u64>,
    },
    /// A repository stands at a commit.
    Cloned {
        url: String,
        path: String,
        commit: String,
        by: String,
    },
    SetupStarted {
        index: u32,
        command: String,
    },
    SetupFinished {
        index: u32,
        exit_code: i32,
        duration_ms: u64,
    },
    /// A line a process printed, or part of one. `text` where it is UTF-8, `base64` where it is not.
    Output {
        phase: Phase,
        stream: Stream,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
        /// The line goes on in the next output event of this stream.
        #[serde(default, skip_serializing_if = "is_false")]
        partial: bool,
    },
    /// Which model answers.
    Model {
        dialect: String,
        model: String,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    /// The model said something.
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    ToolCall {
        id: String,
        name: String,
        input: serde_json::Value,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    ToolResult {
        id: String,
        name: String,
        ok: bool,
        output: String,
        duration_ms: u64,
        #[serde(default, skip_serializing_if = "is_false")]
        truncated: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    /// The provider's own name for the conversation; a later run can go on from it.
    Session {
        provider: String,
        session_id: String,
    },
    /// The provider asks its model again after a failure that may pass.
    ModelRetry {
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ms: Option<u64>,
        message: String,
    },
    /// A line of a provider's output that this build does not know, as it came.
    Raw {
        line: String,
        #[serde(default, skip_serializing_if = "is_false")]
        truncated: bool,
    },
    /// Tokens and money so far, in this execution, as the provider or its endpoint counts them.
    Usage {
        /// All that went in, what came from a cache included.
        input_tokens: u64,
        output_tokens: u64,
        /// Of the input, what came from the vendor's cache.
        #[serde(default, skip_serializing_if = "is_zero")]
        cached_input_tokens: u64,
        turns: u32,
        /// In US dollars, where the provider says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost_usd: Option<f64>,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    /// The provider's final answer.
    Answer {
        text: String,
        #[serde(default, skip_serializing_if = "is_false")]
        scripted: bool,
    },
    /// Something a person should know, said by Ozma.
    Notice {
        text: String,
    },
    /// A bound was reached and something left out.
    Truncated {
        what: String,
        limit: u64,
    },
    /// Part of an artifact's content; kept with the artifact and not shown in the stream.
    ArtifactPart {
        artifact_uid: ArtifactUid,
        index: u32,
        base64: String,
    },
    /// An artifact is complete.
    Artifact(Artifact),
    /// The last event of a sidecar.
    Exit(Exit),
}

/// What a run left behind. `data` follows the artifact type (oz-api.md 1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub artifact_uid: ArtifactUid,
    /// `FILE` or `PULL_REQUEST`.
    pub artifact_type: String,
    /// `FILE`: the name to save it under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// `FILE`: where it stood, below the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filepath: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `FILE`: bytes of content, sent before as `artifact_part` events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// `FILE`: hex SHA-256 of the content; the plane refuses content that does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `PULL_REQUEST`: its address and branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// How an execution ended, as its sidecar saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The provider's own word, never the exit code alone.
    pub success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Present when `success` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// For people: what happened, in a sentence.
    pub message: String,
    /// Highest memory use of the container, where the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_killed: bool,
    /// How long the model's vendor asks to be left alone, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_event_back() {
        let event = Event::Text { text: "a \"quoted\"\nline".to_owned(), scripted: true };
        let line = EventLine::new(7, 1, &event);
        assert_eq!(line.kind, "text");
        let wire = serde_json::to_string(&line).unwrap();
        let read: EventLine = serde_json::from_str(&wire).unwrap();
        assert_eq!(read.event(), Some(event));
    }

    #[test]
    fn an_unknown_kind_is_kept_and_not_understood() {
        let wire = r#"{"seq":1,"at_ms":2,"kind":"from_the_future","data":{"a":1}}"#;
        let line: EventLine = serde_json::from_str(wire).unwrap();
        assert_eq!(line.event(), None);
        assert_eq!(serde_json::to_string(&line).unwrap(), wire);
    }
}
