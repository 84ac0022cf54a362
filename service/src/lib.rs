//! What every long-running process of Ozma does: stop in two steps, log, read configuration, back off.
//! It knows nothing of runs.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod lifecycle;
pub mod logging;
