//! Wake-ups: hints that something changed, within this process and, on PostgreSQL, between planes. Losing one
//! costs time, never truth: whoever waits for one also looks now and then.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, PoisonError},
};

use protocol::ids::RunId;
use tokio::sync::{Notify, watch};

/// Runs share these by hash: a fixed amount of memory, and a false alarm costs one query.
const SHARDS: usize = 256;

/// How "dispatch should look" is said to other planes.
const QUEUE: &str = "queue";

/// Names waiting to be told to the other planes; beyond it the rest is left to their polling.
const MAX_PENDING: usize = 1_024;

#[derive(Debug)]
pub struct Wake {
    queue: watch::Sender<()>,
    runs: Vec<watch::Sender<()>>,
    /// What the other planes have not been told yet, by run id or `queue`.
    pending: Mutex<HashSet<String>>,
    told: Notify,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            queue: watch::Sender::new(()),
            runs: (0..SHARDS).map(|_| watch::Sender::new(())).collect(),
            pending: Mutex::default(),
            told: Notify::new(),
        }
    }
}

impl Wake {
    /// A run was queued, a slot came free, or a cancel waits: dispatch should look.
    pub fn queue(&self) {
        self.queue.send_replace(());
        self.tell(QUEUE);
    }

    /// Dispatch of this plane has more to do; the others hear nothing.
    pub(crate) fn again(&self) {
        self.queue.send_replace(());
    }

    /// A run has new events or a new state.
    pub fn run(&self, id: &RunId) {
        self.shard(id.as_str()).send_replace(());
        self.tell(id.as_str());
    }

    pub fn on_queue(&self) -> watch::Receiver<()> {
        self.queue.subscribe()
    }

    pub fn on_run(&self, id: &RunId) -> watch::Receiver<()> {
        self.shard(id.as_str()).subscribe()
    }

    fn shard(&self, id: &str) -> &watch::Sender<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        &self.runs[index]
    }

    fn tell(&self, name: &str) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MAX_PENDING && pending.insert(name.to_owned()) {
            self.told.notify_one();
        }
    }

    /// What the other planes have not been told yet; told once.
    pub(crate) fn take_pending(&self) -> HashSet<String> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is something to tell the other planes.
    pub(crate) async fn to_tell(&self) {
        self.told.notified().await;
    }

    /// Another plane said that this changed.
    pub(crate) fn heard(&self, name: &str) {
        if name == QUEUE {
            self.queue.send_replace(());
        } else {
            self.shard(name).send_replace(());
        }
    }
}
