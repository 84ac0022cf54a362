//! Taking events in by batch. What a container sends is not trusted: kinds are checked, the plane's own kind
//! cannot be forged, and everything has a bound.

use std::{borrow::Cow, time::Duration};

use protocol::{
    event::{Event, EventLine, EventSource, Exit, Phase},
    ids::{ExecutionId, RunId, is_session_name},
    limits::{MAX_EVENTS, MAX_OUTPUT_BYTES, MAX_SIDECAR_LINE_BYTES},
    run::{Fact, RunState},
};

use super::{
    ExecutionRow, Store, StoreError, Tx, clean, executions::Concerned, millis, transitions::Change,
};

/// Data of one execution's events, in bytes of JSON. At the bound what comes after is thrown away, with one
/// `truncated` event. The sidecar stops long before; this is for one that does not.
const MAX_STORED_BYTES: u64 = 2 * MAX_OUTPUT_BYTES;

/// What is kept of an answer on the run itself; the event has all of it.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// No vendor holds up the next attempt for longer, whatever it asks for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_mins(15);

/// The end of the year 9999: what a date can still be written of.
const MAX_TIME_MS: i64 = 253_402_300_799_999;

/// A batch of events to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    pub(crate) id: ExecutionId,
    /// The worker process that sends them.
    pub(crate) instance: String,
    pub(crate) source: EventSource,
    pub(crate) events: Vec<EventLine>,
    pub(crate) lease_until: i64,
    pub(crate) now: i64,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    Stored {
        run_id: RunId,
        /// Everything of this source up to here is stored.
        seq: u64,
        stored: u64,
        repeated: u64,
        /// The batch began later than expected, and nothing of it was taken.
        gap: bool,
    },
    /// The execution is over or somebody else's: its worker must stop it.
    Superseded,
}

impl Store {
    /// Stores what is new of a batch, and renews the execution's lease.
    pub async fn ingest(
        &self,
        id: &ExecutionId,
        instance: &str,
        source: EventSource,
        events: &[EventLine],
        lease_until: i64,
        now: i64,
    ) -> Result<Ingested, StoreError> {
        let (id, instance, events) = (id.clone(), instance.to_owned(), events.to_vec());
        let ingest = Ingest { id, instance, source, events, lease_until, now };
        self.hand_in_events(ingest).await?.await
    }
}

/// An event that is to be stored: borrowed from its frame, or the plane's own.
struct Told<'a> {
    at_ms: i64,
    kind: Cow<'a, str>,
    data: Cow<'a, str>,
}

impl<'a> Told<'a> {
    fn of(line: &'a EventLine) -> Self {
        let (kind, data) = (Cow::Borrowed(line.kind.as_str()), Cow::Borrowed(line.data.get()));
        Self { at_ms: line.at_ms, kind, data }
    }

    fn own(at_ms: i64, event: &Event) -> Self {
        let line = EventLine::new(0, at_ms, event);
        let data = Cow::Owned(String::from(Box::<str>::from(line.data)));
        Self { at_ms, kind: Cow::Owned(line.kind), data }
    }
}

impl<'a> Concerned<'_, 'a> {
    pub(super) async fn ingest(
        mut self,
        tx: &mut Tx,
        ingest: &'a Ingest,
    ) -> Result<Ingested, StoreError> {
        let row = &self.held.row;
        if row.ending.is_some()
            || row.instance_id != ingest.instance
            || self.head.execution_id.as_ref() != Some(&ingest.id)
        {
            return Ok(Ingested::Superseded);
        }
        let mark = match ingest.source {
            EventSource::Worker => row.worker_seq,
            EventSource::Sidecar => row.sidecar_seq,
        };
        let fresh: Vec<&EventLine> = ingest.events.iter().filter(|line| line.seq > mark).collect();
        let repeated = (ingest.events.len() - fresh.len()) as u64;
        let gap = fresh.iter().zip(mark + 1..).any(|(line, expected)| line.seq != expected);
        let run_id = self.head.id.clone();
        if gap || fresh.is_empty() {
            return Ok(Ingested::Stored { run_id, seq: mark, stored: 0, repeated, gap });
        }
        let stored = fresh.len() as u64;
        self.take_in(tx, ingest, &fresh).await?;
        Ok(Ingested::Stored { run_id, seq: mark + stored, stored, repeated, gap })
    }

    async fn take_in(
        &mut self,
        tx: &mut Tx,
        ingest: &Ingest,
        fresh: &[&'a EventLine],
    ) -> Result<(), StoreError> {
        // Whoever speaks of it has it, should `task_claimed` have been lost.
        let proven = match (ingest.source, self.head.standing.state) {
            (EventSource::Worker, RunState::Pending) => Some(Fact::Claimed),
            (EventSource::Sidecar, RunState::Pending | RunState::Claimed) => Some(Fact::Started),
            _ => None,
        };
        // First of all: a refusal must leave everything as it was.
        if let Some(fact) = proven {
            self.head.advance(fact, &Change::default(), ingest.now, self.events)?;
        }
        let before = self.head.last_seq;
        for line in fresh {
            self.take_one(tx, line, ingest.now).await?;
        }
        match ingest.source {
            EventSource::Worker => self.held.row.worker_seq += fresh.len() as u64,
            EventSource::Sidecar => self.held.row.sidecar_seq += fresh.len() as u64,
        }
        if self.head.last_seq > before {
            self.head.touch();
        }
        self.held.row.lease_expires_at = ingest.lease_until;
        self.held.claimed_at = self.held.claimed_at.or(Some(ingest.now));
        self.held.changed = true;
        Ok(())
    }

    /// Only what the plane acts on is parsed.
    async fn take_one(
        &mut self,
        tx: &mut Tx,
        line: &'a EventLine,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut told = Told::of(line);
        match line.kind.as_str() {
            // Only the plane says where a run stands.
            "state" => return Ok(()),
            "artifact_part" => {
                if let Some(Event::ArtifactPart { artifact_uid, index, base64 }) = line.event() {
                    tx.keep_part(&mut self.held.row, &artifact_uid, index, &base64).await?;
                }
                return Ok(());
            }
            "artifact" => {
                if let Some(Event::Artifact(artifact)) = line.event()
                    && let Err(why) =
                        tx.keep_artifact(self.head, &self.held.row, &artifact, now).await?
                {
                    told = Told::own(line.at_ms, &Event::Notice { text: why });
                }
            }
            "phase_finished" => {
                if let Some(Event::PhaseFinished { phase, duration_ms, .. }) = line.event()
                    && phase != Phase::Queued
                {
                    self.head.phases.insert(phase, duration_ms);
                    self.head.touch();
                }
            }
            "answer" => {
                if let Some(Event::Answer { text, .. }) = line.event() {
                    let end = text.floor_char_boundary(MAX_ANSWER_BYTES);
                    self.head.answer = Some(clean(&text[..end]));
                    self.head.touch();
                }
            }
            "session" => {
                if let Some(Event::Session { session_id, .. }) = line.event()
                    // Another name could not be gone on with: it is not remembered.
                    && is_session_name(&session_id)
                {
                    self.head.session_id = Some(session_id);
                    self.head.touch();
                }
            }
            "exit" => {
                if let Some(Event::Exit(Exit { retry_after_ms: Some(wait), .. })) = line.event() {
                    let wait = i64::try_from(wait).unwrap_or(i64::MAX);
                    self.head.not_before = now + wait.min(millis(MAX_RETRY_AFTER));
                    self.head.touch();
                }
            }
            kind if !well_formed(kind) => return Ok(()),
            _ => {}
        }
        if let Some(Told { at_ms, kind, data }) = self.held.row.tell(told) {
            let (at_ms, id) = (at_ms.clamp(0, MAX_TIME_MS), self.held.row.id.clone());
            self.head.push_event(Some(id), at_ms, kind, data, self.events);
        }
        Ok(())
    }
}

impl ExecutionRow {
    /// What is stored in place of an event: itself, while there is room for it. The end is told whatever came
    /// before it: it has a little room of its own.
    fn tell<'a>(&mut self, told: Told<'a>) -> Option<Told<'a>> {
        const LINE: u64 = MAX_SIDECAR_LINE_BYTES as u64;
        let size = told.data.len() as u64;
        let exit = told.kind == "exit";
        let (events, bytes) = if exit { (1, LINE) } else { (0, 0) };
        if self.stored_events > MAX_EVENTS + events || self.stored_bytes > MAX_STORED_BYTES + bytes
        {
            return None;
        }
        self.stored_events += 1;
        self.stored_bytes += size;
        let over = if size > LINE {
            Some(("an event", LINE))
        } else if exit {
            None
        } else if self.stored_events > MAX_EVENTS {
            Some(("events", MAX_EVENTS))
        } else if self.stored_bytes > MAX_STORED_BYTES {
            Some(("bytes of events", MAX_STORED_BYTES))
        } else {
            None
        };
        Some(match over {
            Some((what, limit)) => {
                Told::own(told.at_ms, &Event::Truncated { what: what.to_owned(), limit })
            }
            None => told,
        })
    }
}

/// What a kind may look like; it becomes a line of a stream.
fn well_formed(kind: &str) -> bool {
    (1..=64).contains(&kind.len())
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution() -> ExecutionRow {
        ExecutionRow {
            id: "e".parse().unwrap(),
            run_id: "r".parse().unwrap(),
            attempt: 1,
            worker_id: "w".parse().unwrap(),
            instance_id: String::new(),
            lease_expires_at: 0,
            ending: None,
            worker_seq: 0,
            sidecar_seq: 0,
            stored_events: 0,
            stored_bytes: 0,
            artifact_bytes: 0,
        }
    }

    fn told(mut execution: ExecutionRow, kinds: &[&str]) -> Vec<String> {
        let mut stored = Vec::new();
        for kind in kinds {
            let json = format!(r#"{{"seq":1,"at_ms":1,"kind":"{kind}","data":{{}}}}"#);
            let line: EventLine = serde_json::from_str(&json).unwrap();
            stored.extend(execution.tell(Told::of(&line)).map(|told| told.kind.into_owned()));
        }
        stored
    }

    #[test]
    fn beyond_the_bound_there_is_one_notice_and_one_end() {
        let kinds = ["text", "text", "notice", "exit", "exit", "exit", "text"];
        let many = ExecutionRow { stored_events: MAX_EVENTS - 1, ..execution() };
        assert_eq!(told(many, &kinds), ["text", "truncated", "exit"]);
        let heavy = ExecutionRow { stored_bytes: MAX_STORED_BYTES, ..execution() };
        let full = MAX_STORED_BYTES + MAX_SIDECAR_LINE_BYTES as u64;
        assert_eq!(told(heavy, &["text", "text", "exit"]), ["truncated", "exit"]);
        let over = ExecutionRow { stored_bytes: full, ..execution() };
        assert_eq!(told(over, &["exit", "exit"]), ["exit"]);
    }
}
