//! The worker's end of one execution's sidecar: a unix socket in a folder that only this execution sees, or the
//! container's standard input and output where the engine is elsewhere.
//! Everything that comes in is hostile until proven otherwise; a connection that breaks the rules ends, and
//! the run goes on for whoever holds the key.

mod attached;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod shared;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, atomic::AtomicU64};

use anyhow::Context;
use protocol::{
    event::Exit,
    sidecar::{Cancel, StopCause},
    spec::RunSpec,
};
use service::lifecycle::Lifecycle;
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::shared::{Contact, Shared};
use crate::{backend::Attach, held::Held, home::Home};

/// Connections at the same time; the next one waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 4;

pub(crate) struct SidecarLink {
    shared: Arc<Shared>,
    /// Lets go of the socket or the container when the execution is over.
    _close: DropGuard,
}

impl SidecarLink {
    /// Begins to listen, or attaches to the container, which is made and not started. `assignment` is `None` for
    /// an execution of an earlier life.
    pub(crate) async fn open(
        life: &Lifecycle,
        held: Arc<Held>,
        home: Home,
        assignment: Option<RunSpec>,
        attach: Option<Attach>,
    ) -> anyhow::Result<Self> {
        let key = home.key()?;
        let way = match attach {
            None => Ok(socket::listen(&home.sock()).context("listen for the sidecar")?),
            // Before it starts, or its first word would be lost.
            Some(attach) if assignment.is_some() => Err((Some(attach.attach().await?), attach)),
            Some(attach) => Err((None, attach)),
        };
        let shared = Arc::new(Shared {
            held,
            home,
            key,
            assignment: Mutex::new(assignment.map(Box::new)),
            contact: watch::Sender::default(),
            exit: watch::Sender::new(None),
            cancel: watch::Sender::new(None),
            bytes: AtomicU64::new(0),
            newest: watch::Sender::new(0),
        });
        let closed = CancellationToken::new();
        match way {
            Ok(listener) => life.spawn(accept(listener, shared.clone(), closed.clone())),
            Err((first, attach)) => {
                life.spawn(attached::keep(attach, first, shared.clone(), closed.clone()))
            }
        };
        Ok(Self { shared, _close: closed.drop_guard() })
    }

    pub(crate) fn contact(&self) -> watch::Receiver<Contact> {
        self.shared.contact.subscribe()
    }

    /// What the sidecar said last, in this life of the worker.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.shared.exit.subscribe()
    }

    /// Notes how the sidecar ended, from wherever its exit event came.
    pub(crate) fn ended(&self, exit: Exit) {
        self.shared.ended(exit);
    }

    /// Tells the sidecar to stop, now and on every connection from now on. The first cause stays.
    pub(crate) fn cancel(&self, cause: StopCause, grace_ms: u64) {
        self.shared.cancel.send_if_modified(|cancel| {
            let first = cancel.is_none();
            cancel.get_or_insert(Cancel { cause, grace_ms });
            first
        });
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>, closed: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, shared.clone()));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a sidecar could not be let in");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
}
