//! Wake-ups: hints that something changed, within this process and, on PostgreSQL, between planes. Losing one
//! costs time, never truth: whoever waits for one also looks now and then.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Mutex, PoisonError},
};

use protocol::ids::RunId;
use service::lifecycle::Lifecycle;
use tokio::sync::{Notify, watch};

use crate::core::Core;

/// Runs share these by hash: a fixed amount of memory, and a false alarm costs one query.
const SHARDS: usize = 256;

/// The channel planes listen on, and what the payload of "dispatch should look" is.
pub(crate) const CHANNEL: &str = "ozma";
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

    fn take_pending(&self) -> HashSet<String> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another plane said that this changed.
    fn heard(&self, name: &str) {
        if name == QUEUE {
            self.queue.send_replace(());
        } else {
            self.shard(name).send_replace(());
        }
    }
}

/// Tells the other planes and listens to them, until the process drains. On `SQLite` there are no others.
pub async fn run(core: Arc<Core>, life: Lifecycle) {
    tokio::join!(speak(&core, &life), listen(&core, &life));
}

async fn speak(core: &Core, life: &Lifecycle) {
    loop {
        tokio::select! {
            () = life.draining().cancelled() => return,
            () = core.wake.told.notified() => {}
        }
        let names = core.wake.take_pending();
        if let Err(error) = core.store.tell_planes(CHANNEL, &core.plane_id, &names).await {
            tracing::debug!(error = format!("{error:#}"), "other planes not told; they poll");
        }
    }
}

async fn listen(core: &Core, life: &Lifecycle) {
    let wait = core.settings.poll;
    while !life.draining().is_cancelled() {
        let heard = core.store.hear_planes(CHANNEL, |payload| {
            let mut lines = payload.lines();
            if lines.next() != Some(core.plane_id.as_str()) {
                lines.for_each(|name| core.wake.heard(name));
            }
        });
        tokio::select! {
            () = life.draining().cancelled() => return,
            Err(error) = heard => {
                tracing::debug!(error = format!("{error:#}"), "not listening to other planes");
            }
        }
        tokio::select! {
            () = life.draining().cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
