//! Faults on purpose, with the real processes and real containers: whatever dies, stops answering or fills up, no
//! run is lost, none counts twice, and a transcript is what its provider printed, byte for byte.

mod caller;
mod cancels;
mod chaos;
mod database;
mod dice;
mod disk;
mod fleet;
mod kill9;
mod link;
mod load;
mod requeue;
mod rolling;
mod transcript;
mod verdict;

use std::time::{Duration, Instant};

/// Longest wait for something that must come, on a machine with two cores that has other things to do.
const PATIENCE: Duration = Duration::from_mins(6);

/// Waits for something that may take long, without asking all the time.
async fn patiently<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    const LONGEST_PAUSE: Duration = Duration::from_millis(300);
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether `scripts/test.sh --long` asks for the longer version of a test.
fn long() -> bool {
    #[expect(clippy::disallowed_methods, reason = "tests have no main to read configuration in")]
    std::env::var("OZMA_LONG").is_ok_and(|value| value == "1")
}

/// A line of the test's report; shown with its failure, or with `--nocapture`.
#[expect(clippy::print_stderr, reason = "a test's report")]
fn say(line: &str) {
    eprintln!("{line}");
}
