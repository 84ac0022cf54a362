//! What is counted of a sweep by whoever removes something in its course.

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) containers: u64,
    pub(crate) networks: u64,
    pub(crate) volumes: u64,
    /// Conversations, each with all that was kept of it.
    pub(crate) sessions: u64,
    pub(crate) folders: u64,
    /// What could not be removed.
    pub(crate) failed: u64,
}

impl Swept {
    /// Says so, and lets the sweep go on: one thing that stays for ever is no reason to keep the others.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        tracing::warn!(
            error = format!("{error:#}"),
            "something could not be removed; the next sweep tries again"
        );
    }
}
