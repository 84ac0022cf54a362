//! Taking events in by batch. What a container sends is not trusted: kinds are checked, the plane's own kind
//! cannot be forged, and everything has a bound.

use protocol::{
    event::{Event, EventLine, EventSource, Phase},
    ids::{ExecutionId, RunId, WorkerId},
    limits::{MAX_EVENTS, MAX_OUTPUT_BYTES, MAX_SIDECAR_LINE_BYTES},
    run::{Fact, RunState},
};

use super::{
    ExecutionRow, Store, StoreError, Tx, again, clean, json, on_tx, signed,
    transitions::{Change, Head, NewEvent},
};

/// Data of one execution's events, in bytes of JSON. At the bound what comes after is thrown away, with one
/// `truncated` event. The sidecar stops long before; this is for one that does not.
const MAX_STORED_BYTES: u64 = 2 * MAX_OUTPUT_BYTES;

/// What is kept of an answer on the run itself; the event has all of it.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The end of the year 9999: what a date can still be written of.
const MAX_TIME_MS: i64 = 253_402_300_799_999;

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
    /// Stores what is new of a batch, in one transaction, and renews the execution's lease.
    pub async fn ingest(
        &self,
        id: &ExecutionId,
        worker: &WorkerId,
        source: EventSource,
        events: &[EventLine],
        lease_until: i64,
        now: i64,
    ) -> Result<Ingested, StoreError> {
        again(async || {
            let mut tx = self.begin().await?;
            let ingested = tx.ingest(id, worker, source, events, lease_until, now).await?;
            match ingested {
                Ingested::Stored { stored: 1.., .. } => tx.commit().await?,
                Ingested::Stored { .. } | Ingested::Superseded => tx.roll_back().await?,
            }
            Ok(ingested)
        })
        .await
    }
}

/// What one batch adds up to.
struct Batch {
    lines: Vec<(i64, String, String)>,
    answer: Option<String>,
    phases_changed: bool,
}

impl Batch {
    fn push(&mut self, at_ms: i64, kind: &str, data: &str) {
        self.lines.push((at_ms.clamp(0, MAX_TIME_MS), kind.to_owned(), data.to_owned()));
    }

    fn push_event(&mut self, at_ms: i64, event: &Event) {
        let line = EventLine::new(0, at_ms, event);
        self.push(at_ms, &line.kind, line.data.get());
    }
}

impl Tx {
    async fn ingest(
        &mut self,
        id: &ExecutionId,
        worker: &WorkerId,
        source: EventSource,
        events: &[EventLine],
        lease_until: i64,
        now: i64,
    ) -> Result<Ingested, StoreError> {
        let Some((head, execution)) = self.lock_execution(id).await? else {
            return Ok(Ingested::Superseded);
        };
        if execution.ending.is_some()
            || execution.worker_id != *worker
            || head.execution_id.as_ref() != Some(id)
        {
            return Ok(Ingested::Superseded);
        }
        let mark = match source {
            EventSource::Worker => execution.worker_seq,
            EventSource::Sidecar => execution.sidecar_seq,
        };
        let fresh: Vec<&EventLine> = events.iter().filter(|line| line.seq > mark).collect();
        let repeated = (events.len() - fresh.len()) as u64;
        let gap = fresh.iter().zip(mark + 1..).any(|(line, expected)| line.seq != expected);
        let run_id = head.id.clone();
        if gap || fresh.is_empty() {
            return Ok(Ingested::Stored { run_id, seq: mark, stored: 0, repeated, gap });
        }
        let stored = fresh.len() as u64;
        self.take_in(head, execution, source, &fresh, lease_until, now).await?;
        Ok(Ingested::Stored { run_id, seq: mark + stored, stored, repeated, gap })
    }

    async fn take_in(
        &mut self,
        mut head: Head,
        mut execution: ExecutionRow,
        source: EventSource,
        fresh: &[&EventLine],
        lease_until: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        // Whoever speaks of it has it, should `task_claimed` have been lost.
        let proven = match (source, head.standing.state) {
            (EventSource::Worker, RunState::Pending) => Some(Fact::Claimed),
            (EventSource::Sidecar, RunState::Pending | RunState::Claimed) => Some(Fact::Started),
            _ => None,
        };
        if let Some(fact) = proven {
            self.advance(&mut head, fact, &Change::default(), now).await?;
        }
        let mut batch = Batch { lines: Vec::new(), answer: None, phases_changed: false };
        for line in fresh {
            self.take_one(&mut head, &mut execution, line, &mut batch, now).await?;
        }
        match source {
            EventSource::Worker => execution.worker_seq += fresh.len() as u64,
            EventSource::Sidecar => execution.sidecar_seq += fresh.len() as u64,
        }
        let events: Vec<_> = batch
            .lines
            .iter()
            .map(|(at_ms, kind, data)| NewEvent {
                execution_id: Some(execution.id.as_str()),
                at_ms: *at_ms,
                kind,
                data,
            })
            .collect();
        self.append_events(&head.id, head.last_seq + 1, &events).await?;
        self.mark_taken_in(&head, &execution, &batch, events.len() as u64, lease_until, now).await
    }

    async fn take_one(
        &mut self,
        head: &mut Head,
        execution: &mut ExecutionRow,
        line: &EventLine,
        batch: &mut Batch,
        now: i64,
    ) -> Result<(), StoreError> {
        let notice;
        let mut told = line;
        match line.kind.as_str() {
            // Only the plane says where a run stands.
            "state" => return Ok(()),
            "artifact_part" => {
                if let Some(Event::ArtifactPart { artifact_uid, index, base64 }) = line.event() {
                    self.keep_part(execution, &artifact_uid, index, &base64).await?;
                }
                return Ok(());
            }
            "artifact" => {
                if let Some(Event::Artifact(artifact)) = line.event()
                    && let Err(why) = self.keep_artifact(head, execution, &artifact, now).await?
                {
                    notice = EventLine::new(0, line.at_ms, &Event::Notice { text: why });
                    told = &notice;
                }
            }
            "phase_finished" => {
                if let Some(Event::PhaseFinished { phase, duration_ms, .. }) = line.event()
                    && phase != Phase::Queued
                {
                    head.phases.insert(phase, duration_ms);
                    batch.phases_changed = true;
                }
            }
            "answer" => {
                if let Some(Event::Answer { text, .. }) = line.event() {
                    let end = text.floor_char_boundary(MAX_ANSWER_BYTES);
                    batch.answer = Some(clean(&text[..end]));
                }
            }
            kind if !well_formed(kind) => return Ok(()),
            _ => {}
        }
        execution.tell(told, batch);
        Ok(())
    }

    async fn mark_taken_in(
        &mut self,
        head: &Head,
        execution: &ExecutionRow,
        batch: &Batch,
        appended: u64,
        lease_until: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        const RUN: &str = "update runs
             set last_seq = $3, phases = $4, answer = coalesce($5, answer)
             where id = $1 and last_seq = $2";
        const EXECUTION: &str = "update executions
             set worker_seq = $2, sidecar_seq = $3, stored_events = $4, stored_bytes = $5,
                 artifact_bytes = $6, lease_expires_at = $7,
                 claimed_at = coalesce(claimed_at, $8)
             where id = $1";
        if appended > 0 || batch.phases_changed {
            let changed = on_tx!(self, |db| sqlx::query(RUN)
                .bind(head.id.as_str())
                .bind(signed(head.last_seq))
                .bind(signed(head.last_seq + appended))
                .bind(json(&head.phases))
                .bind(&batch.answer)
                .execute(db)
                .await
                .map(|done| done.rows_affected()))?;
            if changed != 1 {
                return Err(StoreError::Conflict);
            }
        }
        on_tx!(self, |db| sqlx::query(EXECUTION)
            .bind(execution.id.as_str())
            .bind(signed(execution.worker_seq))
            .bind(signed(execution.sidecar_seq))
            .bind(signed(execution.stored_events))
            .bind(signed(execution.stored_bytes))
            .bind(signed(execution.artifact_bytes))
            .bind(lease_until)
            .bind(now)
            .execute(db)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}

impl ExecutionRow {
    /// Puts an event among those to store, while there is room for it. The end is told whatever came before it:
    /// it has a little room of its own.
    fn tell(&mut self, line: &EventLine, batch: &mut Batch) {
        const LINE: u64 = MAX_SIDECAR_LINE_BYTES as u64;
        let size = line.data.get().len() as u64;
        let exit = line.kind == "exit";
        let (events, bytes) = if exit { (1, LINE) } else { (0, 0) };
        if self.stored_events > MAX_EVENTS + events || self.stored_bytes > MAX_STORED_BYTES + bytes
        {
            return;
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
        match over {
            Some((what, limit)) => {
                let what = what.to_owned();
                batch.push_event(line.at_ms, &Event::Truncated { what, limit });
            }
            None => batch.push(line.at_ms, &line.kind, line.data.get()),
        }
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
        let mut batch = Batch { lines: Vec::new(), answer: None, phases_changed: false };
        for kind in kinds {
            let json = format!(r#"{{"seq":1,"at_ms":1,"kind":"{kind}","data":{{}}}}"#);
            execution.tell(&serde_json::from_str(&json).unwrap(), &mut batch);
        }
        batch.lines.into_iter().map(|(_, kind, _)| kind).collect()
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
