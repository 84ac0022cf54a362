//! The events of one source: numbered, held until acknowledged, cut into batches. Pure.

use std::collections::VecDeque;

use protocol::{
    event::EventLine,
    limits::{MAX_EVENTS_FRAME_BYTES, MAX_EVENTS_PER_FRAME},
};

/// What a worker holds of one execution's unacknowledged events. At either bound it stops reading the
/// sidecar's socket; the sidecar's journal fills, then the provider waits.
const MAX_HELD_BYTES: usize = 4 << 20;
const MAX_HELD_EVENTS: usize = 8 * MAX_EVENTS_PER_FRAME;

/// What an event costs beside its data, in bytes.
const OVERHEAD: usize = 96;

/// Beyond any number a source comes to; a plane that acknowledges more is believed up to here, and sums stay numbers.
const LAST: u64 = u64::MAX / 2;

/// What became of an event that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// Held already; dropped.
    Known,
    /// One or more before it are missing; dropped.
    Gap,
}

#[derive(Default)]
pub(super) struct Lane {
    /// Everything up to here is at the plane; `lines` begins after it.
    acked: u64,
    /// Everything up to here was sent on the present link.
    sent: u64,
    lines: VecDeque<EventLine>,
    bytes: usize,
}

impl Lane {
    pub(super) fn received(&self) -> u64 {
        self.acked + self.lines.len() as u64
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < MAX_HELD_BYTES && self.lines.len() < MAX_HELD_EVENTS
    }

    pub(super) fn is_outstanding(&self) -> bool {
        self.sent > self.acked
    }

    pub(super) fn push(&mut self, line: EventLine) -> Pushed {
        let next = self.received() + 1;
        if line.seq < next {
            return Pushed::Known;
        }
        if line.seq > next {
            return Pushed::Gap;
        }
        self.bytes += cost(&line);
        self.lines.push_back(line);
        Pushed::Taken
    }

    /// True when it is news. Numbers nobody sent come from an earlier life of this worker: they are believed.
    pub(super) fn ack(&mut self, seq: u64) -> bool {
        let seq = seq.min(LAST);
        if seq <= self.acked {
            return false;
        }
        while self.acked < seq {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= cost(&line);
            self.acked = line.seq;
        }
        self.acked = seq;
        self.sent = self.sent.max(seq);
        true
    }

    pub(super) fn rewind(&mut self) {
        self.sent = self.acked;
    }

    /// The next unsent events, as many as one frame may hold; counted as sent.
    pub(super) fn next_batch(&mut self) -> Vec<EventLine> {
        let skip = usize::try_from(self.sent - self.acked).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut batch = Vec::new();
        for line in self.lines.iter().skip(skip).take(MAX_EVENTS_PER_FRAME) {
            bytes += cost(line);
            if bytes > MAX_EVENTS_FRAME_BYTES && !batch.is_empty() {
                break;
            }
            batch.push(line.clone());
        }
        self.sent += batch.len() as u64;
        batch
    }
}

fn cost(line: &EventLine) -> usize {
    OVERHEAD + line.kind.len() + line.data.get().len()
}

#[cfg(test)]
mod tests {
    use protocol::event::Event;

    use super::*;

    fn line(seq: u64, bytes: usize) -> EventLine {
        EventLine::new(seq, 0, &Event::Notice { text: "x".repeat(bytes) })
    }

    #[test]
    fn a_batch_ends_at_either_bound() {
        let mut lane = Lane::default();
        for seq in 1..=600 {
            assert_eq!(lane.push(line(seq, 1)), Pushed::Taken);
        }
        assert_eq!(lane.next_batch().len(), MAX_EVENTS_PER_FRAME);
        assert_eq!(lane.next_batch().len(), 600 - MAX_EVENTS_PER_FRAME);
        assert!(lane.next_batch().is_empty());

        let mut lane = Lane::default();
        for seq in 1..=3 {
            lane.push(line(seq, 600 << 10));
        }
        assert_eq!(lane.next_batch().len(), 1);
    }

    #[test]
    fn numbers_without_gaps_or_doubles() {
        let mut lane = Lane::default();
        assert_eq!(lane.push(line(2, 1)), Pushed::Gap);
        assert_eq!(lane.push(line(1, 1)), Pushed::Taken);
        assert_eq!(lane.push(line(1, 1)), Pushed::Known);
        lane.ack(7);
        assert_eq!((lane.received(), lane.bytes), (7, 0));
        assert_eq!(lane.push(line(8, 1)), Pushed::Taken);
        assert_eq!(lane.next_batch()[0].seq, 8);
    }

    #[test]
    fn a_number_nobody_comes_to_is_survived() {
        let mut lane = Lane::default();
        lane.ack(u64::MAX);
        assert_eq!(lane.push(line(1, 1)), Pushed::Known);
        assert_eq!(lane.push(line(LAST + 1, 1)), Pushed::Taken);
    }

    #[test]
    fn it_is_full_at_its_bound_and_has_room_after_an_ack() {
        let mut lane = Lane::default();
        let mut seq = 0;
        while lane.has_room() {
            seq += 1;
            lane.push(line(seq, 64 << 10));
        }
        assert!(lane.bytes >= MAX_HELD_BYTES);
        lane.ack(seq);
        assert!(lane.has_room());
    }
}
