//! Numbering: every event of this execution passes here, gets its number and time, and goes into the journal.
//! Bounds on events and output are kept here, for all phases together.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{
    event::{Event, EventLine},
    limits::{MAX_EVENTS, MAX_OUTPUT_BYTES, MAX_SIDECAR_LINE_BYTES},
};
use tokio::sync::{Notify, watch};

use crate::journal::{Cursor, Journal};

#[derive(Debug)]
pub(crate) struct Recorder {
    state: Mutex<State>,
    /// Something was appended. One reader at a time waits for it.
    appended: Notify,
    /// The highest number that was acknowledged.
    acked: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    output_bytes: u64,
    /// The bound was reached and that was said.
    output_over: bool,
    events_over: bool,
}

/// Longest line of the journal: what the link takes, less its envelope. A longer event is left out, and said.
const MAX_LINE_BYTES: usize = MAX_SIDECAR_LINE_BYTES - 1024;

/// How often a journal that was full because of the disk is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Recorder {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            state: Mutex::new(State {
                journal,
                output_bytes: 0,
                output_over: false,
                events_over: false,
            }),
            appended: Notify::new(),
            acked: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what a child said, and waits while the journal is full: so that the child waits, too.
    pub(crate) async fn record(&self, event: Event) {
        // One read brings thousands of short lines: the link and a cancel come between them.
        tokio::task::coop::consume_budget().await;
        let mut acked = self.acked.subscribe();
        while self.state().journal.full() {
            acked.borrow_and_update();
            if !self.still_full() {
                break;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, acked.changed()).await;
        }
        if self.within_bounds(&event) {
            self.note(&event);
        }
    }

    /// Whether the journal is full even if the disk has room again.
    fn still_full(&self) -> bool {
        let mut state = self.state();
        state.journal.store();
        state.journal.full()
    }

    /// Records at once, whatever the journal holds: for our own few events.
    pub(crate) fn note(&self, event: &Event) {
        let mut state = self.state();
        let line = |event: &Event| {
            let line = EventLine::new(state.journal.last_seq() + 1, now_ms(), event);
            serde_json::to_string(&line).expect("an event line is plain data")
        };
        let mut text = line(event);
        if text.len() > MAX_LINE_BYTES {
            // Sent, it would end the link, and be sent again for ever.
            let what = "an event".to_owned();
            text = line(&Event::Truncated { what, limit: MAX_LINE_BYTES as u64 });
        }
        state.journal.append(&text);
        drop(state);
        self.appended.notify_one();
    }

    /// Counts an event; says once when a bound is reached.
    fn within_bounds(&self, event: &Event) -> bool {
        let mut state = self.state();
        if state.journal.last_seq() >= MAX_EVENTS {
            let first = !std::mem::replace(&mut state.events_over, true);
            drop(state);
            if first {
                self.note(&Event::Truncated { what: "events".to_owned(), limit: MAX_EVENTS });
            }
            return false;
        }
        let bytes = output_bytes(event);
        state.output_bytes = state.output_bytes.saturating_add(bytes);
        if bytes == 0 || state.output_bytes <= MAX_OUTPUT_BYTES {
            return true;
        }
        let first = !std::mem::replace(&mut state.output_over, true);
        drop(state);
        if first {
            self.note(&Event::Truncated { what: "output".to_owned(), limit: MAX_OUTPUT_BYTES });
        }
        false
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.state().journal.last_seq()
    }

    pub(crate) fn ack(&self, seq: u64) {
        let mut state = self.state();
        state.journal.ack(seq);
        let acked = state.journal.acked();
        drop(state);
        self.acked.send_replace(acked);
    }

    /// Returns when everything up to `seq` is acknowledged.
    pub(crate) async fn wait_acked(&self, seq: u64) {
        // An error would mean that the sender, which is ourselves, is gone.
        let _ = self.acked.subscribe().wait_for(|acked| *acked >= seq).await;
    }

    /// A cursor behind `seq`.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        self.state().journal.cursor(seq)
    }

    /// The next lines, waiting for them. Safe to give up: the cursor moves only with the lines.
    pub(crate) async fn next(&self, cursor: &mut Cursor) -> Vec<u8> {
        loop {
            let batch = self.state().journal.read(cursor);
            if !batch.is_empty() {
                return batch;
            }
            // `notify_one` keeps its word for one who comes late, so nothing is missed between the lines.
            self.appended.notified().await;
        }
    }
}

/// An output event's bytes of text, or what they were before base64.
fn output_bytes(event: &Event) -> u64 {
    match event {
        Event::Output { text: Some(text), .. } => text.len() as u64 + 1,
        Event::Output { base64: Some(text), .. } => text.len() as u64 * 3 / 4 + 1,
        Event::Output { .. } => 1,
        Event::ToolResult { output, .. } => output.len() as u64,
        _ => 0,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sidecar's one look at the clock: an event's time"
)]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use protocol::event::{Phase, Stream};

    use super::*;

    #[test]
    fn an_event_too_long_for_the_link_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let recorder =
            Recorder::new(Journal::create(&folder.path().join("journal.jsonl")).unwrap());
        recorder.note(&Event::Notice { text: "x".repeat(MAX_SIDECAR_LINE_BYTES - 500) });
        let mut cursor = recorder.cursor(0);
        let line = recorder.state().journal.read(&mut cursor);
        let line: EventLine = serde_json::from_slice(&line).unwrap();
        assert_eq!((line.seq, line.kind.as_str()), (1, "truncated"));
    }

    #[tokio::test]
    async fn a_journal_that_was_full_for_the_disk_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let recorder =
            Recorder::new(Journal::create(&folder.path().join("journal.jsonl")).unwrap());
        recorder.state().journal.wait_in_memory(5 << 20);
        assert!(recorder.state().journal.full());
        let text = "heard".to_owned();
        tokio::time::timeout(LOOK_AGAIN * 5, recorder.record(Event::Notice { text }))
            .await
            .unwrap();
        assert_eq!(recorder.last_seq(), 2);
    }

    #[test]
    fn at_the_bound_on_output_one_event_says_so_and_the_rest_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(&folder.path().join("journal.jsonl")).unwrap();
        let recorder = Recorder::new(journal);
        let output = Event::Output {
            phase: Phase::Provider,
            stream: Stream::Stdout,
            text: Some("x".repeat((1 << 16) - 1)),
            base64: None,
            partial: false,
        };
        let taken = (0..5_000).filter(|_| recorder.within_bounds(&output)).count();
        assert_eq!(taken as u64, MAX_OUTPUT_BYTES >> 16);
        assert_eq!(recorder.last_seq(), 1);
        let text = "still heard".to_owned();
        assert!(recorder.within_bounds(&Event::Notice { text }));
    }
}
