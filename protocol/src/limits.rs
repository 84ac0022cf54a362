//! Bounds that two processes must agree on, each with what happens at the bound.

/// Longest line on a sidecar's link, in bytes. A longer one from a container ends that link.
pub const MAX_SIDECAR_LINE_BYTES: usize = 1 << 20;

/// Longest text of one output event, in bytes. A longer line of output is split into several events,
/// each but the last marked `partial`.
pub const MAX_OUTPUT_EVENT_BYTES: usize = 64 << 10;

/// Largest WebSocket message either way, in bytes. A larger one closes the socket with 1009.
/// It holds an assignment with the longest prompt and values, or one batch of events.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Most events in one `events` frame; a worker with more sends several frames.
pub const MAX_EVENTS_PER_FRAME: usize = 512;

/// Where a worker cuts a batch of events, in bytes of their data.
pub const MAX_EVENTS_FRAME_BYTES: usize = 1 << 20;

/// Most output one execution may send, in bytes of text. What comes after is read and thrown away,
/// and one `truncated` event says so; the provider goes on.
pub const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// Most events of one execution. What comes after is thrown away but for `exit`, with a `truncated` event.
pub const MAX_EVENTS: u64 = 1_000_000;

/// What a sidecar keeps of events that nobody acknowledged, in bytes. At the bound it stops reading the
/// provider's output until something is acknowledged: nothing is lost, the provider waits.
pub const MAX_JOURNAL_BYTES: u64 = 64 << 20;

/// Largest artifact, in bytes. A larger file is left out, with a `notice` event that names it.
pub const MAX_ARTIFACT_BYTES: u64 = 32 << 20;

/// Largest sum of a run's artifacts, in bytes; the rest is left out, with a `notice` event.
pub const MAX_ARTIFACTS_BYTES: u64 = 64 << 20;

/// Bytes of content in one `artifact_part` event, before base64.
pub const ARTIFACT_PART_BYTES: usize = 256 << 10;
