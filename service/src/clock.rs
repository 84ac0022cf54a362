//! The time, as an argument: tests set it by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970, from the system or from a test's hand.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    by_hand: Option<Arc<Hands>>,
}

#[derive(Debug)]
struct Hands {
    now: AtomicI64,
    /// Moves with [`Clock::advance`] only, as a stopwatch does.
    passed: AtomicI64,
}

/// A moment by both kinds of time, for [`Clock::jump_since`].
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    wall_ms: i64,
    began: Instant,
    passed_ms: i64,
}

impl Clock {
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is [advanced](Self::advance).
    pub fn by_hand(now_ms: i64) -> Self {
        let hands = Hands { now: AtomicI64::new(now_ms), passed: AtomicI64::new(0) };
        Self { by_hand: Some(Arc::new(hands)) }
    }

    pub fn now_ms(&self) -> i64 {
        match &self.by_hand {
            Some(hands) => hands.now.load(Ordering::SeqCst),
            None => system_now_ms(),
        }
    }

    /// Moves a clock that stands still; the system's takes no orders.
    pub fn advance(&self, by: Duration) {
        if let Some(hands) = &self.by_hand {
            let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            hands.passed.fetch_add(by_ms, Ordering::SeqCst);
            hands.now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Sets a clock by hand to another time, without any time passing; the system's takes no orders.
    pub fn jump(&self, by_ms: i64) {
        if let Some(hands) = &self.by_hand {
            hands.now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Now, to be compared later.
    pub fn moment(&self) -> Moment {
        let passed = self.by_hand.as_ref().map(|hands| hands.passed.load(Ordering::SeqCst));
        Moment {
            wall_ms: self.now_ms(),
            began: Instant::now(),
            passed_ms: passed.unwrap_or_default(),
        }
    }

    /// By how many milliseconds the time of day went on more, or less, than time has passed since `then`: what
    /// somebody, or NTP, has set the clock by.
    pub fn jump_since(&self, then: Moment) -> i64 {
        let passed_ms = i64::try_from(self.passed_since(then).as_millis()).unwrap_or(i64::MAX);
        self.now_ms() - then.wall_ms - passed_ms
    }

    /// How much time has passed since `then`, whatever the time of day was set to.
    pub fn passed_since(&self, then: Moment) -> Duration {
        match &self.by_hand {
            Some(hands) => {
                let passed_ms = hands.passed.load(Ordering::SeqCst) - then.passed_ms;
                Duration::from_millis(u64::try_from(passed_ms).unwrap_or_default())
            }
            None => then.began.elapsed(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
fn system_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_by_hand_stands_still_until_moved() {
        let clock = Clock::by_hand(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.clone().now_ms(), 3_000);
    }

    #[test]
    fn a_jump_is_what_no_time_explains() {
        let clock = Clock::by_hand(1_000_000);
        let then = clock.moment();
        clock.advance(Duration::from_hours(1));
        assert_eq!(clock.jump_since(then), 0);
        clock.jump(-90_000);
        assert_eq!(clock.jump_since(then), -90_000);
        assert_eq!(clock.now_ms(), 1_000_000 + 3_600_000 - 90_000);

        let system = Clock::system();
        let then = system.moment();
        assert!(system.jump_since(then).abs() < 1_000);
    }
}
