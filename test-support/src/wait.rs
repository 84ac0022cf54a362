//! Waiting for the thing itself, with a deadline; never for a time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long [`eventually`] waits before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `probe` gives something, asking every few milliseconds.
///
/// # Panics
/// Nothing came within [`DEADLINE`]; the text names `what`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> T {
    eventually_within(DEADLINE, what, probe).await
}

/// [`eventually`] with a deadline of one's own, for what takes longer than usual.
///
/// # Panics
/// Nothing came within `deadline`; the text names `what`.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    // The clock on the wall: a test that pauses tokio's time would otherwise never reach the deadline.
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// `future`, which must end within [`DEADLINE`].
///
/// # Panics
/// It did not; the text names `what`.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("waited {DEADLINE:?} in vain: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = eventually("the third answer", || {
            asked += 1;
            let answer = (asked == 3).then_some("here");
            async move { answer }
        })
        .await;
        assert_eq!((answer, asked), ("here", 3));
    }

    #[tokio::test]
    #[should_panic(expected = "in vain: a miracle")]
    async fn it_names_what_did_not_come() {
        eventually_within(Duration::from_millis(1), "a miracle", || async { None::<()> }).await;
    }
}
