//! Time that goes on over restarts of this process and that nobody can set: counted from the machine's boot. The
//! time of day is for people; no timeout asks it.

use std::{sync::OnceLock, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment of this machine's present life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    boot_id: String,
    /// From the boot, sleep included.
    ms: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { boot_id: boot_id().to_owned(), ms: millis_of_boot() }
    }

    /// How long ago it was; `None` when the machine has been started anew since.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        let same = self.boot_id == boot_id();
        same.then(|| Duration::from_millis(millis_of_boot().saturating_sub(self.ms)))
    }
}

fn millis_of_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    secs.unwrap_or(0).saturating_mul(1_000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
}

/// Empty where the kernel does not say: then every boot is the same one, and a time may be counted too short.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_another_boot_tells_nothing() {
        let moment = Moment::now();
        assert!(moment.elapsed().unwrap() < Duration::from_secs(5));
        let earlier = Moment { ms: moment.ms - 60, ..moment.clone() };
        assert!(earlier.elapsed().unwrap() >= Duration::from_millis(60));
        assert_eq!(Moment { boot_id: "another".to_owned(), ..moment }.elapsed(), None);
    }
}
