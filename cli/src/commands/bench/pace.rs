//! An open loop's schedule: when each request is due, whatever became of those before it. A plane that stalls is
//! charged for every request it kept waiting, because times count from when a request was due.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// When the requests of an open loop are due. Pure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start: Instant,
    gap: Duration,
    count: u32,
}

impl Schedule {
    /// `count` requests from `start` on, evenly, `per_second` of them each second.
    pub(crate) fn new(start: Instant, per_second: f64, count: u32) -> Self {
        Self { start, gap: Duration::from_secs_f64(1.0 / per_second.max(0.001)), count }
    }

    /// When request `i` is due, from 0; `None` when there are no more.
    pub(crate) fn due(&self, i: u32) -> Option<Instant> {
        (i < self.count).then(|| self.start + self.gap * i)
    }
}

/// Hands out due requests to senders, on time. The clock is a thread of its own: the runtime's timer is good to a
/// millisecond, and that is what is measured.
#[derive(Debug)]
pub(crate) struct Pace {
    schedule: Schedule,
    due: Arc<Semaphore>,
    next: AtomicU32,
    stopped: Arc<AtomicBool>,
}

impl Pace {
    pub(crate) fn start(schedule: Schedule) -> Arc<Self> {
        let due = Arc::new(Semaphore::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let clock = (Arc::clone(&due), Arc::clone(&stopped));
        std::thread::spawn(move || {
            let (due, stopped) = clock;
            let mut i = 0;
            while let Some(at) = schedule.due(i) {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                due.add_permits(1);
                i += 1;
            }
            // Every sender that still waits learns that there is no more.
            due.close();
        });
        Arc::new(Self { schedule, due, next: AtomicU32::new(0), stopped })
    }

    /// When the next request was due, as soon as it is; `None` after the last.
    pub(crate) async fn next(&self) -> Option<Instant> {
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        self.schedule.due(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 200.0, 3);
        let due: Vec<_> = (0..4).map(|i| schedule.due(i).map(|at| at - start)).collect();
        let ms = Duration::from_millis;
        assert_eq!(due, [Some(ms(0)), Some(ms(5)), Some(ms(10)), None]);
    }

    #[tokio::test]
    async fn each_request_is_handed_out_once_and_not_early() {
        let pace = Pace::start(Schedule::new(Instant::now(), 1_000.0, 20));
        let mut handed = 0;
        while let Some(due) = pace.next().await {
            assert!(Instant::now() >= due);
            handed += 1;
        }
        assert_eq!(handed, 20);
        assert_eq!(pace.next().await, None);
    }
}
