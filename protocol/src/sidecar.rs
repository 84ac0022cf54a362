//! Lines between a worker and the sidecar of one execution (design.md 7), and between the sidecar and the
//! unprivileged child that drives the provider.
//!
//! The sidecar dials, says `hello`, and dials again when the link breaks. Its first `hello` carries no key and
//! is answered by `assign`, which gives it one; every later one must carry it, so that nothing else in the
//! container can take its place. After `assign` or `resume` it sends its events in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, EventLine, Exit},
    frame::messages,
    secret::Secret,
    spec::{HarnessSpec, RunSpec},
};

/// Where the sidecar finds its worker inside a container.
pub const SOCKET_PATH: &str = "/run/ozma/worker.sock";

/// Where the sidecar's volume is mounted, read-only.
pub const SIDECAR_MOUNT: &str = "/agent";

/// The sidecar's binary inside the volume.
pub const SIDECAR_BINARY: &str = "/agent/ozma-sidecar";

/// The unacknowledged events, one [`EventLine`] a line, in the container's own file system: what a worker that
/// comes back after the container's end reads.
pub const JOURNAL_PATH: &str = "/ozma/journal.jsonl";

/// Where repositories are cloned to and set-up commands run.
pub const WORKSPACE: &str = "/workspace";

/// Where a conversation's session files are kept, writable by the provider's user.
pub const SESSION_MOUNT: &str = "/ozma/session";

/// The folder below which the command line of a provider is mounted, read-only, where the worker has an image of
/// it: `/harness/<provider>/bin` is at the end of the provider's `PATH`.
pub const HARNESS_MOUNT: &str = "/harness";

/// What a provider printed, with the run's secrets cut out, below `Launch.state_directory`; kept as an artifact.
pub const TRANSCRIPT_FILE: &str = "transcript.jsonl";

/// The unprivileged user that providers run as.
pub const AGENT_UID: u32 = 10_001;

messages! {
    /// From a worker to its sidecar.
    ToSidecar {
        Assign(Box<Assign>) = "assign",
        /// The worker holds everything up to `seq`: send what comes after, from the journal on. In the middle of
        /// a link over standard input and output, from a worker that attached again: say `hello` first.
        Resume(Seq) = "resume",
        /// Everything up to `seq` is stored by the plane; the journal may forget it.
        Ack(Seq) = "ack",
        /// Interrupt the provider, then kill it after the grace; still collect.
        Cancel(Cancel) = "cancel",
        /// A message for the provider, while it runs.
        Message(Message) = "message",
    }
}

messages! {
    /// From a sidecar to its worker.
    FromSidecar {
        Hello(SidecarHello) = "hello",
        Event(EventLine) = "event",
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assign {
    /// What later `hello`s of this sidecar must carry.
    pub key: Secret,
    pub spec: RunSpec,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SidecarHello {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    pub version: String,
    /// The number of its newest event; 0 before the first.
    pub last_seq: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Seq {
    pub seq: u64,
}

/// Why a worker tells its sidecar to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// The user's cancel: the exit event says `task_cancelled`.
    Cancelled,
    /// The run's time was over: the exit event says `task_timeout`.
    Timeout,
    /// The worker is going: the exit event says `graceful_shutdown`.
    Shutdown,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cancel {
    pub cause: StopCause,
    /// Milliseconds from the interrupt to the kill.
    pub grace_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    pub text: String,
}

/// What the sidecar writes to its harness child, one line on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    pub prompt: String,
    /// Where the provider starts: the only repository, or the workspace.
    pub directory: String,
    /// The harness's own folder for the prompt file and configuration, writable.
    pub state_directory: String,
    /// Where what a later run needs to go on with this conversation is kept: the same folder in each of its runs.
    /// No secret may be left in it. Below `state_directory` where nothing is kept.
    #[serde(default)]
    pub session_directory: String,
    /// Whether the built-in agent starts the servers that an earlier scan wrote down in the working directory. Not
    /// outside a container, unless the user says so: whoever can write there decides what runs.
    #[serde(default)]
    pub registry: bool,
    /// The environment's values, for the provider.
    pub env: BTreeMap<String, Secret>,
    pub harness: HarnessSpec,
}

messages! {
    /// From the harness child to the sidecar, one line each on its standard output.
    FromHarness {
        Event(Event) = "event",
        /// The last line: how the provider ended.
        Exit(Exit) = "exit",
    }
}
