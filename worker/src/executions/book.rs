//! Which executions there are, which there were, and what was rejected. Plain data under its owner's lock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use protocol::{ids::ExecutionId, link::FromWorker};

use crate::held::Held;

/// Rejections waiting for a link; the plane's own timeout speaks for those beyond.
const MAX_REJECTIONS: usize = 64;

/// Ended executions remembered, so that an assignment that comes twice is not run twice.
const MAX_REMEMBERED: usize = 256;

#[derive(Default)]
pub(super) struct Book {
    held: BTreeMap<ExecutionId, Arc<Held>>,
    ended: VecDeque<ExecutionId>,
    rejections: VecDeque<FromWorker>,
}

impl Book {
    pub(super) fn hold(&mut self, held: Arc<Held>) {
        self.held.insert(held.execution_id.clone(), held);
    }

    /// Held now, or ended not long ago.
    pub(super) fn knows(&self, id: &ExecutionId) -> bool {
        self.held.contains_key(id) || self.ended.contains(id)
    }

    pub(super) fn find(&self, id: &ExecutionId) -> Option<Arc<Held>> {
        self.held.get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        self.held.values().cloned().collect()
    }

    /// How many take a place: what is reported takes none.
    pub(super) fn active(&self) -> usize {
        self.held.values().filter(|held| !held.outbox.is_reported()).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn forget(&mut self, id: &ExecutionId) {
        self.held.remove(id);
        self.ended.push_back(id.clone());
        if self.ended.len() > MAX_REMEMBERED {
            self.ended.pop_front();
        }
    }

    pub(super) fn reject(&mut self, rejection: FromWorker) {
        if self.rejections.len() < MAX_REJECTIONS {
            self.rejections.push_back(rejection);
        }
    }

    pub(super) fn next_rejection(&mut self) -> Option<FromWorker> {
        self.rejections.pop_front()
    }
}
