//! What every connection of one execution's sidecar knows together, and what its watcher sees of it.

use std::sync::{Arc, Mutex, atomic::AtomicU64};

use protocol::{event::Exit, secret::Secret, sidecar::Cancel, spec::RunSpec};
use tokio::sync::watch;

use crate::{held::Held, home::Home};

/// What a watcher of the link can see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is seen on its own")]
pub(crate) struct Contact {
    /// A sidecar said hello, ever.
    pub(crate) ever: bool,
    /// One is connected now.
    pub(crate) now: bool,
    /// A sidecar asked for an assignment that is gone: it can never begin.
    pub(crate) stranded: bool,
    /// It said more than a sidecar of ours ever does.
    pub(crate) flooding: bool,
}

pub(super) struct Shared {
    pub(super) held: Arc<Held>,
    pub(super) home: Home,
    pub(super) key: Secret,
    /// Handed out until the sidecar has shown that it has it, then forgotten.
    pub(super) assignment: Mutex<Option<Box<RunSpec>>>,
    pub(super) contact: watch::Sender<Contact>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    pub(super) cancel: watch::Sender<Option<Cancel>>,
    /// Bytes of every line so far, in this life of the worker.
    pub(super) bytes: AtomicU64,
    /// Counts valid hellos: a connection older than the newest ends.
    pub(super) newest: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn ended(&self, exit: Exit) {
        self.save(&exit);
        self.exit.send_replace(Some(exit));
    }

    /// Before the event goes out: once the plane acknowledges it, the sidecar's journal forgets it.
    pub(super) fn save(&self, exit: &Exit) {
        if let Err(error) = self.home.save_exit(exit) {
            tracing::error!(
                execution.id = %self.held.execution_id,
                error = format!("{error:#}"),
                "the exit of {} could not be saved; a restart now would lose it",
                self.held.execution_id
            );
        }
    }
}
