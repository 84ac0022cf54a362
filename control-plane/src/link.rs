//! The link to workers: accepts a socket, finds out the dialect, and turns frames into reports and events. What
//! it remembers of a connection is a hint; whether an execution may go on is asked of the store every time.

mod executions;
mod frames;
mod opening;
mod peer;
pub mod registry;
mod session;

use std::sync::Arc;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use protocol::{ids::WorkerId, limits::MAX_FRAME_BYTES};

#[doc(hidden)]
pub use self::{peer::Peer, registry::Line};
use crate::{
    core::Core,
    store::{ConnectedRow, ConnectionRow, StoreError},
};

/// What a reading socket holds before there is a message; a thousand idle workers cost 4 MB and not 128.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// Executions one `hello` or heartbeat may name; more than any worker runs. The rest is not looked at.
const MAX_EXECUTIONS: usize = 10_000;

/// How long a connection counts as there after it was last heard of.
pub(crate) const SEEN_FOR_MS: i64 = 120_000;

/// Sets the bounds of a worker's socket; to be called before the upgrade.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
}

/// Speaks with one worker until its socket ends, it is replaced, or the plane drains. Whoever calls it has
/// made sure that the caller may be a worker.
pub async fn serve_worker(core: Arc<Core>, socket: WebSocket, worker_id: WorkerId) {
    let life = core.life.clone();
    // On the tracker, so that a stop waits for what the worker sent last.
    if let Err(error) = life.spawn(session::run(core, socket, worker_id)).await {
        tracing::error!(error = %error, "a worker's session panicked");
    }
}

/// The workers connected to any plane.
pub async fn connected(core: &Core) -> Result<Vec<ConnectionRow>, StoreError> {
    core.store.connections(core.now() - SEEN_FOR_MS).await
}

/// The same, each with how many executions it holds.
pub async fn connected_and_busy(core: &Core) -> Result<Vec<ConnectedRow>, StoreError> {
    core.store.connected(core.now() - SEEN_FOR_MS).await
}
