//! One worker as the plane speaks with it, whatever carries the frames: a socket, or a test's own network. It
//! takes frames in order and puts answers in line; it never reads or writes a byte itself.

use std::{collections::VecDeque, sync::Arc};

use protocol::{
    ids::WorkerId,
    link::{FromWorker, Hello},
};

use super::{
    frames::{self, Handed, Owing},
    opening,
    registry::{Connection, Dialect, Line},
};
use crate::{
    core::Core,
    store::{StoreError, millis},
};

/// Frames of one worker under way to the store at a time, and their size in bytes. At the bound nothing more is
/// read of it until the first of them is stored.
const MAX_UNDER_WAY: usize = 64;
const MAX_UNDER_WAY_BYTES: usize = 8 << 20;

/// A frame the store has not answered yet.
#[derive(Debug)]
struct Owed {
    answer: Owing,
    bytes: usize,
}

/// A worker that is connected, from its first frame to its last.
#[doc(hidden)]
#[derive(Debug)]
pub struct Peer {
    core: Arc<Core>,
    connection: Arc<Connection>,
    /// What the store has not answered yet, in the order of the frames.
    owed: VecDeque<Owed>,
    owed_bytes: usize,
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
    ) -> Result<(Self, Line), StoreError> {
        let (outgoing, queue) = Line::new();
        let connection = match hello {
            Some(hello) => opening::ozma(&core, worker_id, hello, outgoing).await?,
            None => opening::stock(&core, worker_id, outgoing).await?,
        };
        Ok((Self { core, connection, owed: VecDeque::new(), owed_bytes: 0 }, queue))
    }

    /// Acts on one frame, and comes back when its answers, and all before them, are in line.
    ///
    /// # Errors
    /// The store failed: the connection has to be closed, so that the worker dials and says it again.
    pub async fn hear(&mut self, frame: FromWorker) -> Result<(), StoreError> {
        self.take(frame).await?;
        self.settle().await
    }

    /// Hands a frame on to be stored. Its answers come in line, in the order of the frames, while
    /// [`answered`](Self::answered) is waited for; so many frames share one commit.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), of this frame or of an earlier one.
    pub async fn take(&mut self, frame: FromWorker) -> Result<(), StoreError> {
        let bytes = frames::weight(&frame);
        while self.owed.len() >= MAX_UNDER_WAY
            || (self.owes() && self.owed_bytes + bytes > MAX_UNDER_WAY_BYTES)
        {
            self.answered().await?;
        }
        match frames::hand_in(&self.core, &self.connection, frame).await {
            Ok(Handed::Owed(answer)) => {
                self.owed.push_back(Owed { answer, bytes });
                self.owed_bytes += bytes;
            }
            Ok(Handed::Done) => {}
            // It has to see what became of those before it.
            Ok(Handed::Alone(frame)) => {
                self.settle().await?;
                frames::handle(&self.core, &self.connection, *frame).await?;
            }
            Err(error) => return Err(error),
        }
        frames::heard(&self.core, &self.connection).await
    }

    /// Whether there are answers to wait for.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Waits for the answer to the frame that was taken first of those without one, and puts it in line. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// As [`hear`](Self::hear).
    pub async fn answered(&mut self) -> Result<(), StoreError> {
        let Some(first) = self.owed.front_mut() else { return Ok(()) };
        let settled = first.answer.settled(&self.core, &self.connection).await;
        if let Some(first) = self.owed.pop_front() {
            self.owed_bytes -= first.bytes;
        }
        settled
    }

    /// Waits until every answer is in line.
    async fn settle(&mut self) -> Result<(), StoreError> {
        while self.owes() {
            self.answered().await?;
        }
        Ok(())
    }

    /// Any other sign of life.
    pub(super) async fn heard(&mut self) -> Result<(), StoreError> {
        frames::heard(&self.core, &self.connection).await
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// It was replaced, or is too slow: whoever carries its frames is to close it.
    pub fn is_closing(&self) -> bool {
        self.connection.closing.is_cancelled()
    }

    /// Nothing more is handed to it; what it still says is heard.
    pub fn leave(&self) {
        self.core.workers.remove(&self.connection.id);
    }

    /// Forgets the connection. Its executions go on: they have their leases.
    pub async fn close(mut self) {
        self.leave();
        // What was handed in counts, and those who follow the runs want to know.
        while self.owes() {
            if let Err(error) = self.answered().await {
                tracing::debug!(error = %error, "what a worker said last was not stored");
            }
        }
        if let Err(error) = self.core.store.remove_connection(&self.connection.id).await {
            tracing::debug!(error = %error, "the connection's row stays until it is swept");
        }
        let instance = &self.connection.instance_id;
        // A stock worker may take longer to come back, and holds what it was handed.
        if self.connection.dialect == Dialect::Ozma
            && self.core.workers.of_instance(instance).is_empty()
        {
            let until = self.core.now() + millis(self.core.settings.lease);
            if let Err(error) = self.core.store.expect_no_answer(instance, until).await {
                tracing::debug!(error = %error, "what it has not answered is waited for as long as ever");
            }
        }
    }
}
