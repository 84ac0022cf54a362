//! A group of items stored together: what they concern is read at once, the rules are applied in memory, item
//! after item, and what came of it is written with a few statements over many rows. An item a rule refuses
//! changes nothing and gets its own answer; a failing statement fails the group, which the writer then halves.

use std::collections::{BTreeSet, HashMap};

use protocol::{
    event::{EventLine, EventSource},
    ids::{ExecutionId, RunId, WorkerId},
};

use super::{
    ExecutionRow, Report, StoreError, Tx,
    executions::Closing,
    reports::Retry,
    submissions::Arrivals,
    transitions::{Head, NewEvent},
    writer::{Answer, Ask},
};

pub(super) use super::submissions::Memory;

/// A report to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: ExecutionId,
    /// Who reports; `None` is the plane itself.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) report: Report,
    /// When a run that is queued again may be claimed.
    pub(crate) retry: Retry,
    pub(crate) now: i64,
}

/// A batch of events to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    pub(crate) id: ExecutionId,
    pub(crate) worker: WorkerId,
    pub(crate) source: EventSource,
    pub(crate) events: Vec<EventLine>,
    pub(crate) lease_until: i64,
    pub(crate) now: i64,
}

/// Leases to be renewed.
#[derive(Debug, Clone)]
pub(crate) struct Renew {
    pub(crate) worker: WorkerId,
    pub(crate) ids: Vec<ExecutionId>,
    pub(crate) until: i64,
}

/// An execution the group concerns, as it will be written.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: ExecutionRow,
    pub(super) changed: bool,
    /// When the worker was first heard of it, should it not have been before.
    pub(super) claimed_at: Option<i64>,
    pub(super) closing: Option<Closing>,
}

/// An execution, its run, and where their events go.
pub(super) struct Concerned<'g, 'a> {
    pub(super) head: &'g mut Head,
    pub(super) held: &'g mut Held,
    pub(super) events: &'g mut Vec<NewEvent<'a>>,
}

#[derive(Default)]
pub(super) struct Group<'a> {
    heads: HashMap<RunId, Head>,
    executions: HashMap<ExecutionId, Held>,
    events: Vec<NewEvent<'a>>,
}

impl<'a> Group<'a> {
    /// Writes all of it but the commit. Gives an outcome for each item, and whether there is anything to commit.
    pub(super) async fn store(
        &mut self,
        tx: &mut Tx,
        memory: &mut Memory,
        asks: &'a [Ask],
    ) -> Result<(Vec<Result<Answer, StoreError>>, bool), StoreError> {
        self.load(tx, asks).await?;
        let mut arrivals = Arrivals::read(tx, memory, asks).await?;
        let mut judged: Vec<Option<Result<Answer, StoreError>>> = Vec::with_capacity(asks.len());
        for ask in asks {
            judged.push(match ask {
                Ask::Record(record) => Some(own(self.record(record).map(Answer::Recorded))?),
                Ask::Ingest(ingest) => {
                    Some(own(self.ingest(tx, ingest).await.map(Answer::Ingested))?)
                }
                Ask::Insert(new) => {
                    let inserted = arrivals.insert(new, &mut self.events);
                    Some(own(inserted.map(Answer::Inserted))?)
                }
                Ask::Renew(_) | Ask::Work(_) => None,
            });
        }
        let mut changed = arrivals.write(tx).await?;
        changed |= self.write(tx).await?;
        memory.freed(self.over());
        let mut renewed = tx.renew_leases(asks).await?;
        let mut settled = Vec::with_capacity(asks.len());
        for (outcome, ask) in judged.into_iter().zip(asks) {
            settled.push(match (outcome, ask) {
                (Some(outcome), _) => outcome,
                (None, Ask::Work(work)) => {
                    changed = true;
                    Ok(Answer::Work(work(tx).await?))
                }
                (None, _) => {
                    changed = true;
                    Ok(Answer::Renewed(renewed.pop_front().unwrap_or_default()))
                }
            });
        }
        Ok((settled, changed))
    }

    /// What the group holds of this execution; `None` if there is none.
    pub(super) fn concerned(&mut self, id: &ExecutionId) -> Option<Concerned<'_, 'a>> {
        let held = self.executions.get_mut(id)?;
        let of = self.heads.get_mut(&held.row.run_id)?;
        Some(Concerned { head: of, held, events: &mut self.events })
    }

    /// Reads executions and runs, the runs so that nobody else changes them until the end of the transaction.
    async fn load(&mut self, tx: &mut Tx, asks: &[Ask]) -> Result<(), StoreError> {
        let ids: BTreeSet<&ExecutionId> = asks
            .iter()
            .filter_map(|ask| match ask {
                Ask::Record(record) => Some(&record.id),
                Ask::Ingest(ingest) => Some(&ingest.id),
                Ask::Insert(_) | Ask::Renew(_) | Ask::Work(_) => None,
            })
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = ids.into_iter().map(ExecutionId::as_str).collect();
        for head in tx.lock_runs_of(&ids).await? {
            self.heads.insert(head.id.clone(), head);
        }
        // After the runs are locked: until then an execution may change.
        for row in tx.executions(&ids).await? {
            let held = Held { row, changed: false, claimed_at: None, closing: None };
            self.executions.insert(held.row.id.clone(), held);
        }
        Ok(())
    }

    /// How many runs it brought to their end.
    fn over(&self) -> usize {
        let over = |head: &&Head| head.changed() && head.standing.state.is_terminal();
        self.heads.values().filter(over).count()
    }

    async fn write(&mut self, tx: &mut Tx) -> Result<bool, StoreError> {
        let mut heads: Vec<_> = self.heads.values().filter(|head| head.changed()).collect();
        heads.sort_by(|a, b| a.id.cmp(&b.id));
        let mut executions: Vec<_> = self.executions.values().filter(|held| held.changed).collect();
        executions.sort_by(|a, b| a.row.run_id.cmp(&b.row.run_id));
        tx.write_runs(&heads).await?;
        tx.write_executions(&executions).await?;
        tx.append_events(&self.events).await?;
        Ok(!heads.is_empty() || !executions.is_empty() || !self.events.is_empty())
    }
}

/// An item's own answer; a statement that failed is everybody's.
fn own<T>(outcome: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match outcome {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Conflict)) => Err(error),
        own => Ok(own),
    }
}
