//! What one execution has to say to the plane: its claim, its numbered events, its report. All of it is kept
//! until the plane has acknowledged it, and sent again after a lost link. It never looks into an event.

mod lane;

use std::sync::{Arc, Mutex, MutexGuard};

use protocol::{
    event::{Event, EventLine, EventSource},
    ids::{ExecutionId, RunId, WorkerId},
    link::{Events, FromWorker, TaskClaimed, Verdict},
};
use tokio::{
    sync::{Notify, watch},
    time::{Duration, Instant},
};

use self::lane::Lane;
pub use self::lane::Pushed;
use crate::sync::lock;

/// How long the plane may take to acknowledge before everything outstanding is sent again.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Worker events waiting, at most; further progress is left out, since it is for people and there is more to come.
const MAX_WORKER_EVENTS: usize = 512;

pub(crate) struct Outbox {
    run_id: RunId,
    execution_id: ExecutionId,
    inner: Mutex<Inner>,
    /// Something was acknowledged: there may be room again.
    space: Notify,
    /// What the plane holds of the sidecar's events; the sidecar is told.
    sidecar_acked: watch::Sender<u64>,
    /// Wakes the link.
    wake: Arc<Notify>,
}

struct Inner {
    worker: Lane,
    sidecar: Lane,
    claim: Option<WorkerId>,
    report: Option<FromWorker>,
    report_sent: bool,
    /// When something was last sent or acknowledged; `None` before the first time.
    moved: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new(run_id: RunId, execution_id: ExecutionId, wake: Arc<Notify>) -> Self {
        let inner = Inner {
            worker: Lane::default(),
            sidecar: Lane::default(),
            claim: None,
            report: None,
            report_sent: false,
            moved: None,
        };
        Self {
            run_id,
            execution_id,
            inner: Mutex::new(inner),
            space: Notify::new(),
            sidecar_acked: watch::Sender::new(0),
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Says that the worker took the run.
    pub(crate) fn claim(&self, worker_id: WorkerId) {
        self.lock().claim = Some(worker_id);
        self.wake.notify_one();
    }

    /// Numbers and queues one of the worker's own events.
    pub(crate) fn say(&self, at_ms: i64, event: &Event) {
        {
            let mut inner = self.lock();
            if matches!(event, Event::ImageProgress { .. })
                && inner.worker.len() >= MAX_WORKER_EVENTS
            {
                return;
            }
            let seq = inner.worker.received() + 1;
            inner.worker.push(EventLine::new(seq, at_ms, event));
        }
        self.wake.notify_one();
    }

    /// Queues an event of the sidecar; waits while the plane is too far behind.
    pub(crate) async fn forward(&self, mut line: EventLine) -> Pushed {
        let mut room = std::pin::pin!(self.space.notified());
        loop {
            room.as_mut().enable();
            match self.offer(line) {
                Ok(pushed) => return pushed,
                Err(back) => line = back,
            }
            room.as_mut().await;
            room.set(self.space.notified());
        }
    }

    /// Queues an event of the sidecar; gives it back while the plane is too far behind.
    pub(crate) fn offer(&self, line: EventLine) -> Result<Pushed, EventLine> {
        let pushed = {
            let mut inner = self.lock();
            if !inner.sidecar.has_room() {
                return Err(line);
            }
            inner.sidecar.push(line)
        };
        self.wake.notify_one();
        Ok(pushed)
    }

    /// The number of the newest sidecar event held here or at the plane.
    pub(crate) fn sidecar_received(&self) -> u64 {
        self.lock().sidecar.received()
    }

    pub(crate) fn sidecar_acked(&self) -> watch::Receiver<u64> {
        self.sidecar_acked.subscribe()
    }

    /// The last thing said about this execution; it goes out after every event.
    pub(crate) fn report(&self, report: FromWorker) {
        self.lock().report = Some(report);
        self.wake.notify_one();
    }

    pub(crate) fn is_reported(&self) -> bool {
        self.lock().report.is_some()
    }

    /// The plane holds everything of `source` up to `seq`.
    pub(crate) fn ack(&self, source: EventSource, seq: u64, now: Instant) {
        let mut inner = self.lock();
        let lane = match source {
            EventSource::Worker => &mut inner.worker,
            EventSource::Sidecar => &mut inner.sidecar,
        };
        if lane.ack(seq) {
            inner.moved = Some(now);
        }
        self.acked(inner);
    }

    fn acked(&self, inner: MutexGuard<'_, Inner>) {
        let acked = inner.sidecar.acked();
        drop(inner);
        self.sidecar_acked.send_if_modified(|known| std::mem::replace(known, acked) != acked);
        self.space.notify_waiters();
        self.wake.notify_one();
    }

    /// A new link is up and the plane said what it holds: everything after that goes out again.
    pub(crate) fn resume(&self, verdict: &Verdict, worker_id: &WorkerId, now: Instant) {
        let mut inner = self.lock();
        inner.worker.ack(verdict.worker_seq);
        inner.sidecar.ack(verdict.sidecar_seq);
        inner.rewind(now);
        if verdict.worker_seq == 0 && verdict.sidecar_seq == 0 {
            // The claim may have been lost with the old link.
            inner.claim = Some(worker_id.clone());
        }
        self.acked(inner);
    }

    /// The next message to send, if there is one.
    pub(crate) fn next(&self, now: Instant) -> Option<FromWorker> {
        let mut inner = self.lock();
        let stalled = inner.moved.is_some_and(|moved| now.duration_since(moved) > STALLED_AFTER);
        if stalled && inner.is_outstanding() {
            inner.rewind(now);
        }
        let message = self.take(&mut inner)?;
        inner.moved = Some(now);
        Some(message)
    }

    fn take(&self, inner: &mut Inner) -> Option<FromWorker> {
        if let Some(worker_id) = inner.claim.take() {
            return Some(FromWorker::TaskClaimed(TaskClaimed {
                task_id: self.run_id.clone(),
                worker_id,
                execution_id: Some(self.execution_id.clone()),
            }));
        }
        for (source, lane) in
            [(EventSource::Worker, &mut inner.worker), (EventSource::Sidecar, &mut inner.sidecar)]
        {
            let events = lane.next_batch();
            if !events.is_empty() {
                let execution_id = self.execution_id.clone();
                return Some(FromWorker::Events(Events { execution_id, source, events }));
            }
        }
        if inner.report_sent {
            return None;
        }
        inner.report_sent = inner.report.is_some();
        inner.report.clone()
    }
}

impl Inner {
    fn is_outstanding(&self) -> bool {
        self.report_sent || self.worker.is_outstanding() || self.sidecar.is_outstanding()
    }

    fn rewind(&mut self, now: Instant) {
        self.worker.rewind();
        self.sidecar.rewind();
        self.report_sent = false;
        self.moved = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::Phase;

    use super::*;

    fn outbox() -> Outbox {
        Outbox::new("run".parse().unwrap(), "exe".parse().unwrap(), Arc::new(Notify::new()))
    }

    fn kinds(outbox: &Outbox, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| outbox.next(now))
            .map(|message| match message {
                FromWorker::Events(events) => {
                    let seqs: Vec<_> = events.events.iter().map(|line| line.seq).collect();
                    format!("{} {seqs:?}", events.source.as_str())
                }
                other => other.kind().to_owned(),
            })
            .collect()
    }

    fn line(seq: u64) -> EventLine {
        EventLine::new(seq, 0, &Event::Notice { text: "n".to_owned() })
    }

    fn report() -> FromWorker {
        FromWorker::parse(r#"{"type":"task_completed","data":{"task_id":"run"}}"#).unwrap()
    }

    #[tokio::test]
    async fn everything_goes_out_once_and_again_after_a_lost_link() {
        let (outbox, now) = (outbox(), Instant::now());
        outbox.claim("w".parse().unwrap());
        outbox.say(0, &Event::PhaseStarted { phase: Phase::Image });
        for seq in 1..=3 {
            assert_eq!(outbox.forward(line(seq)).await, Pushed::Taken);
        }
        outbox.report(report());
        let all = ["task_claimed", "worker [1]", "sidecar [1, 2, 3]", "task_completed"];
        assert_eq!(kinds(&outbox, now), all);
        assert!(kinds(&outbox, now).is_empty());

        let verdict = Verdict {
            execution_id: "exe".parse().unwrap(),
            keep: true,
            worker_seq: 1,
            sidecar_seq: 2,
        };
        outbox.resume(&verdict, &"w".parse().unwrap(), now);
        assert_eq!(kinds(&outbox, now), ["sidecar [3]", "task_completed"]);
        assert_eq!(*outbox.sidecar_acked().borrow(), 2);
    }

    #[tokio::test]
    async fn what_nobody_acknowledges_is_sent_again() {
        let (outbox, mut now) = (outbox(), Instant::now());
        outbox.forward(line(1)).await;
        outbox.report(report());
        assert_eq!(kinds(&outbox, now).len(), 2);
        now += STALLED_AFTER * 2;
        outbox.ack(EventSource::Sidecar, 1, now);
        assert!(kinds(&outbox, now).is_empty(), "an acknowledgement starts the wait anew");
        now += STALLED_AFTER * 2;
        assert_eq!(kinds(&outbox, now), ["task_completed"]);
    }
}
