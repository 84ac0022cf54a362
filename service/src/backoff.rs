//! How long to wait before the next try: growing, capped, jittered, and forgetting old failures.

use std::{cell::Cell, time::Duration};

/// A session this long up counts as a success, and the next wait starts small again.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Waits for one endless retry loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// `first` is the ceiling of the first wait, `cap` that of the longest.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, ceiling: first }
    }

    /// The next wait, random in `0..=ceiling`; `up` is how long the last try held.
    pub fn next(&mut self, up: Duration) -> Duration {
        if up >= FORGET_AFTER {
            self.ceiling = self.first;
        }
        let wait = jitter(self.ceiling);
        self.ceiling = (self.ceiling * 2).min(self.cap);
        wait
    }
}

/// A random duration in `0..=ceiling`, so that a fleet does not knock all at once.
pub fn jitter(ceiling: Duration) -> Duration {
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    if let Some(random) = repeated() {
        return Duration::from_micros(random % micros);
    }
    // Without randomness the ceiling itself: longer, but never a busy loop.
    getrandom::u64().map_or(ceiling, |random| Duration::from_micros(random % micros))
}

thread_local! {
    static REPEATED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on every jitter of this thread follows from `seed`: for tests that have to repeat exactly.
#[doc(hidden)]
pub fn repeat_jitter(seed: u64) {
    REPEATED.set(Some(seed));
}

/// The next number of a sequence anybody can predict (Knuth's MMIX), where one was asked for.
fn repeated() -> Option<u64> {
    let last = REPEATED.get()?;
    let next = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    REPEATED.set(Some(next));
    Some(next >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_small_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        for ceiling in [1, 2, 4, 8, 8] {
            assert!(backoff.next(Duration::ZERO) <= Duration::from_secs(ceiling));
        }
        assert_eq!(backoff.ceiling, Duration::from_secs(8));
        assert!(backoff.next(FORGET_AFTER) <= Duration::from_secs(1));
    }
}
