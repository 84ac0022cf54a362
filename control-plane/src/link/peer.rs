//! One worker as the plane speaks with it, whatever carries the frames: a socket, or a test's own network. It
//! takes frames in order and puts answers in line; it never reads or writes a byte itself.

use std::sync::Arc;

use protocol::{
    ids::WorkerId,
    link::{FromWorker, Hello, ToWorker},
};
use tokio::sync::mpsc;

use super::{
    frames, opening,
    registry::{Connection, MAX_QUEUED_FRAMES},
};
use crate::{core::Core, store::StoreError};

/// A worker that is connected, from its first frame to its last.
#[doc(hidden)]
#[derive(Debug)]
pub struct Peer {
    core: Arc<Core>,
    connection: Arc<Connection>,
}

impl Peer {
    /// Takes a worker in: with its `hello` as one of ours, without one as a stock worker. What is to be sent to
    /// it, `welcome` first, comes out of the receiver.
    ///
    /// # Errors
    /// The store could not say what the worker may go on with; it has to dial again.
    pub async fn open(
        core: Arc<Core>,
        worker_id: WorkerId,
        hello: Option<&Hello>,
    ) -> Result<(Self, mpsc::Receiver<ToWorker>), StoreError> {
        let (outgoing, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        let connection = match hello {
            Some(hello) => opening::ozma(&core, worker_id, hello, outgoing).await?,
            None => opening::stock(&core, worker_id, outgoing).await?,
        };
        Ok((Self { core, connection }, queue))
    }

    /// Acts on one frame, and comes back when its answers are in line.
    ///
    /// # Errors
    /// The store failed: the connection has to be closed, so that the worker dials and says it again.
    pub async fn hear(&mut self, frame: FromWorker) -> Result<(), StoreError> {
        frames::handle(&self.core, &self.connection, frame).await
    }

    /// Any other sign of life.
    pub(super) async fn heard(&mut self) -> Result<(), StoreError> {
        frames::heard(&self.core, &self.connection).await
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Nothing more is handed to it; what it still says is heard.
    pub fn leave(&self) {
        self.core.workers.remove(&self.connection.id);
    }

    /// Forgets the connection. Its executions go on: they have their leases.
    pub async fn close(self) {
        self.leave();
        if let Err(error) = self.core.store.remove_connection(&self.connection.id).await {
            tracing::debug!(error = %error, "the connection's row stays until it is swept");
        }
    }
}
