//! A group of items stored together: what they concern is read at once, the rules are applied in memory, item
//! after item, and what came of it is written with a few statements over many rows. An item a rule refuses
//! changes nothing and gets its own answer; a failing statement fails the group, which the writer then halves.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap},
};

use futures_util::future::BoxFuture;
use protocol::ids::{ExecutionId, RunId};

use super::{
    InsertRun, Inserted, Recorded, StoreError, Tx,
    executions::{Concerned, Held},
    ingest::{Ingest, Ingested},
    leases::Renew,
    reports::{Judged, Record},
    submissions::{Arrivals, Memory},
    transitions::{Head, NewEvent},
};

/// What somebody wants stored.
pub(super) enum Ask {
    Record(Record),
    Ingest(Ingest),
    Insert(Box<InsertRun>),
    Renew(Renew),
    Work(Work),
}

/// Work in the group's transaction, after the group's own statements. It may be tried more than once.
pub(super) type Work = Box<
    dyn for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<Box<dyn Any + Send>, StoreError>>
        + Send
        + Sync,
>;

/// What became of it.
pub(super) enum Answer {
    Recorded(Judged),
    Ingested(Ingested),
    Inserted(Inserted),
    Renewed(Vec<ExecutionId>),
    Work(Box<dyn Any + Send>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
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
        let runs: Vec<&InsertRun> = asks
            .iter()
            .filter_map(|ask| if let Ask::Insert(new) = ask { Some(&**new) } else { None })
            .collect();
        let mut arrivals = Arrivals::read(tx, memory, &runs).await?;
        let mut renewals = Vec::new();
        let mut judged: Vec<Option<Result<Answer, StoreError>>> = Vec::with_capacity(asks.len());
        for ask in asks {
            judged.push(match ask {
                Ask::Record(record) => {
                    let judged = match self.concerned(&record.id) {
                        Some(concerned) => concerned.record(record),
                        None => Ok(Recorded::Superseded.into()),
                    };
                    Some(own(judged.map(Answer::Recorded))?)
                }
                Ask::Ingest(ingest) => {
                    let ingested = match self.concerned(&ingest.id) {
                        Some(concerned) => concerned.ingest(tx, ingest).await,
                        None => Ok(Ingested::Superseded),
                    };
                    Some(own(ingested.map(Answer::Ingested))?)
                }
                Ask::Insert(new) => {
                    let inserted = arrivals.insert(new, &mut self.events);
                    Some(own(inserted.map(Answer::Inserted))?)
                }
                Ask::Renew(renew) => {
                    self.foresee(renew);
                    renewals.push(renew);
                    None
                }
                Ask::Work(_) => None,
            });
        }
        let mut changed = arrivals.write(tx).await?;
        changed |= self.write(tx).await?;
        memory.freed(self.over());
        let mut renewed = tx.renew_leases(&renewals).await?;
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

    /// A lease that is renewed further on counts for whoever judges it after the one that asked.
    fn foresee(&mut self, renew: &Renew) {
        for id in &renew.ids {
            let Some(held) = self.executions.get_mut(id) else { continue };
            if held.row.instance_id == renew.instance && held.row.ending.is_none() {
                held.row.lease_expires_at = held.row.lease_expires_at.max(renew.until);
            }
        }
    }

    /// What the group holds of this execution; `None` if there is none.
    fn concerned(&mut self, id: &ExecutionId) -> Option<Concerned<'_, 'a>> {
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
        Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Conflict)) => {
            Err(error)
        }
        own => Ok(own),
    }
}
