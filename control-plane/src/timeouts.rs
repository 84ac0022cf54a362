//! How long a run may take: what its author wishes, what the plane falls back on, and what nobody may exceed.

use protocol::spec::Timeouts;
use serde::{Deserialize, Serialize};

/// No bound of a run is longer, whatever a plane's ceilings: a week, and longer is a mistake in the unit. The
/// reaper gives up what lasts longer than eight days.
pub const MAX_TIMEOUT_SECS: u64 = 7 * 24 * 3_600;

/// Bounds of a run in seconds, as far as somebody chose them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutWishes {
    pub queue_secs: Option<u64>,
    pub image_secs: Option<u64>,
    pub setup_secs: Option<u64>,
    pub run_secs: Option<u64>,
}

impl TimeoutWishes {
    /// These, and where they say nothing, `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            queue_secs: self.queue_secs.or(other.queue_secs),
            image_secs: self.image_secs.or(other.image_secs),
            setup_secs: self.setup_secs.or(other.setup_secs),
            run_secs: self.run_secs.or(other.run_secs),
        }
    }

    /// These with every choice made: `defaults` for what is open, and nothing above `ceilings`.
    #[must_use]
    pub fn settle(self, defaults: Timeouts, ceilings: Ceilings) -> Self {
        let queue = self.queue_secs.or(defaults.queue_secs).unwrap_or(ceilings.queue_secs);
        let image = self.image_secs.unwrap_or(defaults.image_secs);
        let setup = self.setup_secs.unwrap_or(defaults.setup_secs);
        let run = self.run_secs.unwrap_or(defaults.run_secs);
        Self {
            queue_secs: Some(queue.min(ceilings.queue_secs)),
            image_secs: Some(image.min(ceilings.image_secs)),
            setup_secs: Some(setup.min(ceilings.setup_secs)),
            run_secs: Some(run.min(ceilings.run_secs)),
        }
    }

    /// For a worker. A copy that an older plane made has every choice made as well.
    pub fn resolved(self) -> Timeouts {
        let defaults = Timeouts::default();
        Timeouts {
            queue_secs: self.queue_secs,
            image_secs: self.image_secs.unwrap_or(defaults.image_secs),
            setup_secs: self.setup_secs.unwrap_or(defaults.setup_secs),
            run_secs: self.run_secs.unwrap_or(defaults.run_secs),
        }
    }
}

/// What no environment and no run may exceed, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    pub queue_secs: u64,
    pub image_secs: u64,
    pub setup_secs: u64,
    pub run_secs: u64,
}

impl Default for Ceilings {
    fn default() -> Self {
        let most = MAX_TIMEOUT_SECS;
        Self { queue_secs: most, image_secs: most, setup_secs: most, run_secs: most }
    }
}
