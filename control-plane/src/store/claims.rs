//! Claiming: queued runs become executions, for many workers at once, in one transaction of a fixed number of
//! statements. What is planned is planned on what that transaction reads.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::FutureExt;
use protocol::{
    event::{Event, EventLine},
    failure::FailureReason,
    ids::{EnvironmentId, ExecutionId, RunId, TenantId, WorkerId},
    run::{Fact, RunState, Standing},
};
use sqlx::QueryBuilder;

use super::{
    Db, Store, StoreError, Tx, again,
    lanes::{From, Loads, MAX_LANES, MAX_LANES_EACH, Seen},
    on_tx, parse,
    runs::optional,
};
use crate::plan::{self, Load, Plan, Slots};

/// The most one transaction claims; dispatch comes again for more.
const MAX_BATCH: usize = 256;

/// Statements over at most so many runs are kept prepared; each number of runs is another text.
const MAX_KEPT: usize = 16;

/// Owners with more lanes than a look takes in of one, whose other lanes are looked at in one pass.
const MAX_CUT_OWNERS: usize = 8;

/// Owners whose place among their lanes is kept; beyond it all begin anew.
const MAX_KEPT_OWNERS: usize = 1_024;

/// Hand-overs of one wait that are told to the run's watchers. Of a run that no worker takes, the further ones
/// only count: its events must not grow for as long as it waits.
pub(super) const TOLD_HANDOVERS: i64 = 5;

/// Planes claim one after another. Otherwise each would plan on what the other is about to change, and together
/// they could hand a tenant more than its limit and a worker more than its slots. The transaction is short, its
/// idle time is bounded by the server, and one claims for all of its plane's workers. Drains take the lock too.
const CLAIMS_LOCK: i64 = 0x6f7a_6d61;

/// A worker process that asks for work.
#[derive(Debug, Clone)]
pub struct Claimant {
    pub worker_id: WorkerId,
    /// The worker's process; its open executions count against its capacity.
    pub instance_id: String,
    pub tags: Vec<String>,
    pub capacity: u32,
    /// Runs to take at most, whatever the capacity.
    pub most: u32,
}

/// One look at the queue for the workers of a plane.
#[derive(Debug)]
pub struct Claim {
    pub claimants: Vec<Claimant>,
    /// Runs under way of a tenant without a limit of its own; `None` without a bound.
    pub max_running: Option<u32>,
    /// By then the workers must have answered.
    pub answer_by: i64,
    pub now: i64,
    pub rotation: Rotation,
}

/// Where the next look begins, when there is more to see than one takes in. A hint: with an empty one the first
/// lanes are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rotation {
    owner: String,
    /// Of owners with many lanes, the last one looked at.
    lanes: BTreeMap<String, String>,
    /// How many lanes there were: how deep to look into each.
    seen: usize,
}

impl Rotation {
    /// Whether the next look begins a new round of all lanes.
    pub fn is_at_start(&self) -> bool {
        self.owner.is_empty() && self.lanes.is_empty()
    }
}

/// What one look came to.
#[derive(Debug, Default)]
pub struct Claimed {
    pub assignments: Vec<Assignment>,
    /// There may be more to hand over at once.
    pub unfinished: bool,
    pub rotation: Rotation,
}

/// A run that became an execution, with all its assignment needs.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Index into the claimants.
    pub claimant: usize,
    pub run_id: RunId,
    pub execution_id: ExecutionId,
    pub owner: TenantId,
    pub attempt: u32,
    pub title: String,
    pub prompt: String,
    pub environment_id: Option<EnvironmentId>,
    /// JSON: the environment as it was at the request.
    pub snapshot: String,
    pub env_sealed: Option<Vec<u8>>,
    pub mcp_sealed: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    execution_id: String,
    owner: String,
    title: String,
    prompt: String,
    environment_id: Option<String>,
    snapshot: String,
    env_sealed: Option<Vec<u8>>,
    mcp_sealed: Option<Vec<u8>>,
    attempt: i64,
    last_seq: i64,
    declines: i64,
    reason: Option<String>,
    message: Option<String>,
}

/// A run that is to become an execution.
struct Take<'a> {
    run: &'a str,
    execution: ExecutionId,
    claimant: usize,
}

impl Store {
    /// Hands queued runs to the workers that ask, by the order of [`plan`].
    pub async fn claim(&self, claim: &Arc<Claim>) -> Result<Claimed, StoreError> {
        match self.db() {
            // With what the writer has to store anyway: one commit for both.
            Db::Sqlite { .. } => {
                let claim = Arc::clone(claim);
                self.exclusive(move |tx| {
                    let claim = Arc::clone(&claim);
                    async move { tx.claim(&claim).await }.boxed()
                })
                .await
            }
            // Beside it: reports are not to wait for another plane's claim.
            Db::Postgres(_) => {
                again(async || {
                    let mut tx = self.begin().await?;
                    tx.lock_claims().await?;
                    let claimed = tx.claim(claim).await?;
                    if claimed.assignments.is_empty() {
                        tx.roll_back().await?;
                    } else {
                        tx.commit().await?;
                    }
                    Ok(claimed)
                })
                .await
            }
        }
    }
}

impl Tx {
    async fn claim(&mut self, claim: &Claim) -> Result<Claimed, StoreError> {
        let loads = self.loads().await?;
        let slots = slots(&claim.claimants, &loads);
        let free: usize = slots.iter().map(|one| one.free as usize).sum();
        if free == 0 {
            return Ok(Claimed { rotation: claim.rotation.clone(), ..Claimed::default() });
        }
        // Twice what each lane's share would be; where one turns out to have more turns, there is another look.
        let depth = (2 * free).div_ceil(claim.rotation.seen.max(1)).min(free).min(MAX_BATCH);
        let (seen, rotation, whole) = self.look(&claim.rotation, depth, claim.now).await?;
        let loads = owners(&seen, &loads, claim.max_running);
        let Plan { handovers, unfinished } = plan::plan(&seen.lanes, &loads, &slots, MAX_BATCH);
        let takes: Vec<_> = handovers
            .iter()
            .map(|at| Take {
                run: &seen.lanes[at.lane].runs[at.run].id,
                execution: ExecutionId::from_uuid(uuid::Uuid::now_v7()),
                claimant: at.worker,
            })
            .collect();
        // Slots that nothing of this look fits may fit what the next one sees.
        let rotation = if unfinished {
            Rotation { seen: rotation.seen, ..claim.rotation.clone() }
        } else {
            rotation
        };
        let all = whole && rotation.is_at_start();
        let unfinished = unfinished || (!all && takes.len() < free);
        let assignments =
            if takes.is_empty() { Vec::new() } else { self.assign(&takes, claim).await? };
        Ok(Claimed { assignments, unfinished, rotation })
    }
}

/// What each claimant may be given now.
fn slots(claimants: &[Claimant], loads: &Loads) -> Vec<Slots> {
    let each = claimants.iter().map(|one| {
        let busy = loads.busy.get(&one.instance_id).copied().unwrap_or_default();
        let drained = loads.drained.contains(one.worker_id.as_str());
        let free = if drained { 0 } else { one.capacity.saturating_sub(busy).min(one.most) };
        Slots { worker_id: one.worker_id.to_string(), tags: one.tags.clone(), free }
    });
    each.collect()
}

fn owners(seen: &Seen, loads: &Loads, max_running: Option<u32>) -> BTreeMap<String, Load> {
    let each = seen.lanes.iter().map(|lane| {
        let active = loads.active.get(&lane.owner).copied().unwrap_or_default();
        let limit = loads.limits.get(&lane.owner).map_or(max_running, |&own| bounded(own));
        (lane.owner.clone(), Load { active, limit })
    });
    each.collect()
}

/// A limit as settings and admins write it: 0 is none.
pub(crate) fn bounded(limit: u32) -> Option<u32> {
    (limit > 0).then_some(limit)
}

impl Tx {
    /// Until the end of the transaction no other plane claims. On `SQLite` a write is alone anyway.
    pub(super) async fn lock_claims(&mut self) -> Result<(), StoreError> {
        if let Self::Postgres(tx) = self {
            let lock = sqlx::query("select pg_advisory_xact_lock($1)").bind(CLAIMS_LOCK);
            lock.execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// Looks at the lanes from where the last look ended. True: it was the first look of a round, and saw the last
    /// owner.
    async fn look(
        &mut self,
        rotation: &Rotation,
        depth: usize,
        now: i64,
    ) -> Result<(Seen, Rotation, bool), StoreError> {
        let from = From { owner: &rotation.owner, placement: None, most: MAX_LANES };
        let mut seen = self.lanes(from, depth, now).await?;
        let more = seen.heads >= MAX_LANES;
        let whole = !more && rotation.is_at_start();
        // What other looks of this round learnt stays.
        let mut lanes = rotation.lanes.clone();
        if lanes.len() > MAX_KEPT_OWNERS {
            lanes.clear();
        }
        let mut cut: Vec<_> = std::mem::take(&mut seen.cut).into_iter().collect();
        // An owner that this look saw whole has no place to be kept.
        lanes.retain(|owner, _| {
            let covered = *owner >= rotation.owner && (!more || *owner <= seen.owner_before);
            !covered || cut.iter().any(|(one, _)| one == owner)
        });
        let mut served = 0;
        // Those that had no turn of late come first; who begins among them varies with the time.
        let begin = usize::try_from(now / 1_000).unwrap_or(0) % cut.len().max(1);
        cut.rotate_left(begin);
        cut.sort_by_key(|(owner, _)| rotation.lanes.contains_key(owner));
        for (owner, last) in cut {
            let after = rotation.lanes.get(&owner).cloned().unwrap_or(last);
            if served < MAX_CUT_OWNERS {
                served += 1;
                let from = From { owner: &owner, placement: Some(&after), most: MAX_LANES_EACH };
                let mut further = self.lanes(from, depth, now).await?;
                further.lanes.retain(|lane| lane.owner == owner);
                let known: Vec<_> = seen.lanes.iter().filter(|lane| lane.owner == owner).collect();
                further
                    .lanes
                    .retain(|lane| known.iter().all(|one| one.placement != lane.placement));
                match further.cut.remove(&owner) {
                    Some(last) => lanes.insert(owner, last),
                    // At the end of its lanes it begins anew.
                    None => lanes.remove(&owner),
                };
                seen.lanes.append(&mut further.lanes);
            }
        }
        let rotation = Rotation {
            // The last owner may have more lanes than were looked at: the next look begins with it.
            owner: if more { seen.owner_before.clone() } else { String::new() },
            lanes,
            seen: seen.heads,
        };
        Ok((seen, rotation, whole))
    }

    /// Turns queued runs into executions; one that is not queued any more is left out.
    ///
    /// This statement and `advance` are the two that write `runs.state`. Like that one it takes the state from
    /// `Standing::apply`, and it writes only over the state that was given to it.
    async fn assign(
        &mut self,
        takes: &[Take<'_>],
        claim: &Claim,
    ) -> Result<Vec<Assignment>, StoreError> {
        let pending = Standing::QUEUED.apply(Fact::Assigned)?.state;
        // On PostgreSQL others may look at the same rows, a cancel for one: what they hold is passed over.
        let passing_over =
            if matches!(self, Self::Postgres(_)) { " for update of run skip locked" } else { "" };
        let rows: Vec<Row> = on_tx!(self, |db| {
            let mut query = QueryBuilder::new("update runs set state = ");
            query.push_bind(pending.as_str()).push(", updated_at = ").push_bind(claim.now);
            query.push(", last_seq = last_seq + case when declines < ").push_bind(TOLD_HANDOVERS);
            query.push(
                " then 1 else 0 end,
                 attempt = attempt + 1, version = version + 1, phases = '{}', session_id = null,
                 execution_id = given.execution_id, worker_id = given.worker_id
                 from (select run.id, taken.column2 as execution_id, taken.column3 as worker_id
                       from (",
            );
            query.push_values(takes, |mut values, take| {
                values
                    .push_bind(take.run)
                    .push_bind(take.execution.as_str())
                    .push_bind(claim.claimants[take.claimant].worker_id.as_str());
            });
            query.push(") taken join runs run on run.id = taken.column1 where run.state = ");
            query.push_bind(Standing::QUEUED.state.as_str()).push(" and run.not_before <= ");
            query.push_bind(claim.now).push(passing_over);
            query.push(
                ") given where runs.id = given.id
                 returning runs.id, runs.execution_id, owner, title, prompt, environment_id, snapshot,
                     env_sealed, mcp_sealed, attempt, last_seq, declines, reason, message",
            );
            let query = query.build_query_as().persistent(takes.len() <= MAX_KEPT);
            query.fetch_all(db).await
        })?;
        // They come back in any order; they are told and handed over in that of the turns.
        let mut rows: BTreeMap<String, Row> =
            rows.into_iter().map(|row| (row.execution_id.clone(), row)).collect();
        let given: Vec<_> = takes
            .iter()
            .filter_map(|take| Some((rows.remove(take.execution.as_str())?, take)))
            .collect();
        if given.is_empty() {
            return Ok(Vec::new());
        }
        self.insert_executions(&given, claim).await?;
        self.tell_handovers(&given, claim, pending).await?;
        given.into_iter().map(|(row, take)| row.assignment(take)).collect()
    }

    async fn insert_executions(
        &mut self,
        taken: &[(Row, &Take<'_>)],
        claim: &Claim,
    ) -> Result<(), StoreError> {
        on_tx!(self, |db| {
            let mut query = QueryBuilder::new(
                "insert into executions
                 (id, run_id, attempt, worker_id, instance_id, lease_expires_at, assigned_at,
                  worker_seq, sidecar_seq, stored_events, stored_bytes, artifact_bytes) ",
            );
            query.push_values(taken, |mut values, (row, take)| {
                let claimant = &claim.claimants[take.claimant];
                values
                    .push_bind(&row.execution_id)
                    .push_bind(&row.id)
                    .push_bind(row.attempt)
                    .push_bind(claimant.worker_id.as_str())
                    .push_bind(&claimant.instance_id)
                    .push_bind(claim.answer_by)
                    .push_bind(claim.now)
                    .push("0, 0, 0, 0, 0");
            });
            query.build().persistent(taken.len() <= MAX_KEPT).execute(db).await.map(|_| ())
        })?;
        Ok(())
    }

    /// Appends what the runs' watchers see of it; the rows' `last_seq` is already theirs.
    async fn tell_handovers(
        &mut self,
        taken: &[(Row, &Take<'_>)],
        claim: &Claim,
        pending: RunState,
    ) -> Result<(), StoreError> {
        let told: Vec<_> = taken
            .iter()
            .filter(|(row, _)| row.declines < TOLD_HANDOVERS)
            .map(|(row, take)| {
                let state = Event::State {
                    state: pending,
                    attempt: u32::try_from(row.attempt).unwrap_or_default(),
                    reason: row.reason.clone().map(FailureReason::from),
                    message: row.message.clone(),
                    worker_id: Some(claim.claimants[take.claimant].worker_id.to_string()),
                    cancelling: false,
                };
                (row, EventLine::new(0, claim.now, &state))
            })
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        on_tx!(self, |db| {
            let mut query = QueryBuilder::new(
                "insert into run_events (run_id, seq, execution_id, at_ms, kind, data) ",
            );
            query.push_values(&told, |mut values, (row, line)| {
                values
                    .push_bind(&row.id)
                    .push_bind(row.last_seq)
                    .push_bind(&row.execution_id)
                    .push_bind(claim.now)
                    .push_bind(&line.kind)
                    .push_bind(line.data.get());
            });
            query.build().persistent(told.len() <= MAX_KEPT).execute(db).await.map(|_| ())
        })?;
        Ok(())
    }
}

impl Row {
    fn assignment(self, take: &Take<'_>) -> Result<Assignment, StoreError> {
        Ok(Assignment {
            claimant: take.claimant,
            run_id: parse(&self.id, "run id")?,
            execution_id: take.execution.clone(),
            owner: parse(&self.owner, "run owner")?,
            attempt: u32::try_from(self.attempt).map_err(|_| StoreError::Corrupt("run attempt"))?,
            title: self.title,
            prompt: self.prompt,
            environment_id: optional(self.environment_id, "environment id")?,
            snapshot: self.snapshot,
            env_sealed: self.env_sealed,
            mcp_sealed: self.mcp_sealed,
        })
    }
}
