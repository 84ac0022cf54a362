//! The queue as dispatch looks at it: its lanes with their first runs, and what everybody has under way. Each
//! read is bounded, and none looks at all of a long queue.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ExecutionId, RunId};

use super::{Store, StoreError, Tx, on_pool, on_tx, parse};
use crate::{
    placement::Placement,
    plan::{Lane, Waiting},
};

/// Lanes that one look takes in. Beyond it the next look goes on where this one ended, so that every owner's turn
/// comes.
pub(super) const MAX_LANES: usize = 1_024;

/// Lanes of one owner that a look takes in, so that one owner with many wishes does not fill it. Owners with more
/// have the rest looked at in rotation.
pub(super) const MAX_LANES_EACH: usize = 64;

/// Wishes to stop that one look takes in; the rest follow when these have ended.
const MAX_CANCELS: i64 = 4_096;

/// What the planes are asked to do besides handing over runs.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// Executions whose run's user asked for it to stop.
    pub cancels: Vec<CancelCall>,
    /// Workers that are to take nothing new.
    pub drained: BTreeSet<String>,
    /// Whether any run waits.
    pub waiting: bool,
}

#[derive(Debug, Clone)]
pub struct CancelCall {
    pub execution_id: ExecutionId,
    pub instance_id: String,
    pub run_id: RunId,
}

/// What is under way, and who may not have more.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads {
    /// Runs under way of each owner; who has none is left out.
    pub(super) active: BTreeMap<String, u32>,
    /// Executions of each worker process.
    pub(super) busy: BTreeMap<String, u32>,
    /// Running limits of owners that have one of their own; 0 for none.
    pub(super) limits: BTreeMap<String, u32>,
    pub(super) drained: BTreeSet<String>,
}

/// Where a look at the lanes begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) owner: &'a str,
    /// After this lane of the owner; `None` for after all of them.
    pub(super) placement: Option<&'a str>,
    pub(super) most: usize,
}

/// What one look saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) lanes: Vec<Lane>,
    /// How many lanes there were to see, those without a ready run included.
    pub(super) heads: usize,
    /// The last lane looked at of each owner that has as many as are looked at.
    pub(super) cut: BTreeMap<String, String>,
    /// The last two owners seen.
    pub(super) last_owner: String,
    pub(super) owner_before: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    nth: i64,
    owner: String,
    placement: String,
    /// None for a lane without a ready run.
    id: Option<String>,
    priority: Option<i64>,
    created_at: Option<i64>,
}

/// Walks from lane to lane by the index alone (`$1` owner, `$2` placement to begin after, `$3` lanes at most, `$4`
/// lanes of one owner at most): each step is one or two seeks, however many runs a lane holds. A head is the
/// lane's first run; `of` and `nth` say how many lanes its predecessor's owner had shown by then.
macro_rules! heads {
    () => {
        "with recursive head(id, of, nth, seen) as (
             select coalesce(
                 (select id from runs where state = 'QUEUED' and owner = $1 and placement > $2
                  order by placement, priority desc, created_at, id limit 1),
                 (select id from runs where state = 'QUEUED' and owner > $1
                  order by owner, placement, priority desc, created_at, id limit 1)),
                 cast('' as text), cast(0 as bigint), cast(1 as bigint)
             union all
             select coalesce(
                 (select next.id from runs next
                  where next.state = 'QUEUED' and next.owner = lane.owner
                    and next.placement > lane.placement
                    and case when lane.owner = head.of then head.nth + 1 else 1 end < $4
                  order by next.placement, next.priority desc, next.created_at, next.id limit 1),
                 (select next.id from runs next
                  where next.state = 'QUEUED' and next.owner > lane.owner
                  order by next.owner, next.placement, next.priority desc, next.created_at, next.id
                  limit 1)),
                 lane.owner,
                 case when lane.owner = head.of then head.nth + 1 else 1 end,
                 head.seen + 1
             from head join runs lane on lane.id = head.id
             where head.seen < $3
         )"
    };
}

impl Store {
    /// What there is to do besides planning; cheap enough for every wake-up.
    pub async fn calls(&self) -> Result<Calls, StoreError> {
        const SQL: &str = "select 'cancel' as what, e.id as name, e.instance_id, e.run_id
             from (select execution_id from runs where cancelling = 1 limit $1) asked
             join executions e on e.id = asked.execution_id where e.ended_at is null
             union all
             select 'drain', worker_id, '', '' from worker_drains
             union all
             select 'waiting', '', '', '' from (select 1 from runs where state = 'QUEUED' limit 1) any_run";
        let rows: Vec<(String, String, String, String)> =
            on_pool!(self, |db| sqlx::query_as(SQL).bind(MAX_CANCELS).fetch_all(db).await)?;
        let mut calls = Calls::default();
        for (what, name, instance_id, run) in rows {
            match what.as_str() {
                "cancel" => calls.cancels.push(CancelCall {
                    execution_id: parse(&name, "execution id")?,
                    instance_id,
                    run_id: parse(&run, "run id")?,
                }),
                "drain" => {
                    calls.drained.insert(name);
                }
                _ => calls.waiting = true,
            }
        }
        Ok(calls)
    }
}

impl Tx {
    pub(super) async fn loads(&mut self) -> Result<Loads, StoreError> {
        const SQL: &str = "select 'active' as what, owner as name, count(*) as n from runs
             where state in ('PENDING', 'CLAIMED', 'INPROGRESS') group by owner
             union all
             select 'busy', instance_id, count(*) from executions where ended_at is null
             group by instance_id
             union all
             select 'limit', owner, max_running from tenant_limits where max_running is not null
             union all
             select 'drain', worker_id, 0 from worker_drains";
        let rows: Vec<(String, String, i64)> =
            on_tx!(self, |db| sqlx::query_as(SQL).fetch_all(db).await)?;
        let mut loads = Loads::default();
        for (what, name, n) in rows {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            match what.as_str() {
                "active" => loads.active.insert(name, n),
                "busy" => loads.busy.insert(name, n),
                "limit" => loads.limits.insert(name, n),
                _ => {
                    loads.drained.insert(name);
                    None
                }
            };
        }
        Ok(loads)
    }

    /// The lanes from there on, each with its first `depth` runs that are ready by `now`.
    pub(super) async fn lanes(
        &mut self,
        from: From<'_>,
        depth: usize,
        now: i64,
    ) -> Result<Seen, StoreError> {
        // A lane's first runs: a correlated list there, a lateral join here; neither knows the other's.
        const SQLITE: &str = concat!(
            heads!(),
            " select head.seen as nth, lane.owner, lane.placement, run.id, run.priority, run.created_at
              from head join runs lane on lane.id = head.id
              left join runs run on run.id in (
                  select ready.id from runs ready
                  where ready.state = 'QUEUED' and ready.owner = lane.owner
                    and ready.placement = lane.placement and ready.not_before <= $5
                  order by ready.priority desc, ready.created_at, ready.id limit $6)
              order by head.seen, run.priority desc, run.created_at, run.id"
        );
        const POSTGRES: &str = concat!(
            heads!(),
            " select head.seen as nth, lane.owner, lane.placement, run.id, run.priority, run.created_at
              from head join runs lane on lane.id = head.id
              left join lateral (
                  select ready.id, ready.priority, ready.created_at from runs ready
                  where ready.state = 'QUEUED' and ready.owner = lane.owner
                    and ready.placement = lane.placement and ready.not_before <= $5
                  order by ready.priority desc, ready.created_at, ready.id limit $6) run on true
              order by head.seen, run.priority desc, run.created_at, run.id"
        );
        let (most, each, depth_bound) = (bound(from.most), bound(MAX_LANES_EACH), bound(depth));
        macro_rules! rows {
            ($sql:expr, $tx:expr) => {
                sqlx::query_as($sql)
                    .bind(from.owner)
                    .bind(from.placement)
                    .bind(most)
                    .bind(each)
                    .bind(now)
                    .bind(depth_bound)
                    .fetch_all(&mut **$tx)
                    .await?
            };
        }
        let rows: Vec<Row> = match self {
            Self::Sqlite(tx) => rows!(SQLITE, tx),
            Self::Postgres(tx) => rows!(POSTGRES, tx),
        };
        Ok(seen(rows, depth))
    }
}

fn seen(rows: Vec<Row>, depth: usize) -> Seen {
    let mut seen = Seen::default();
    let mut of_owner = 0;
    for of_lane in rows.chunk_by(|a, b| a.nth == b.nth) {
        let first = &of_lane[0];
        seen.heads += 1;
        if seen.last_owner == first.owner {
            of_owner += 1;
        } else {
            of_owner = 1;
            seen.owner_before = std::mem::replace(&mut seen.last_owner, first.owner.clone());
        }
        if of_owner == MAX_LANES_EACH {
            seen.cut.insert(first.owner.clone(), first.placement.clone());
        }
        let runs: Vec<_> = of_lane.iter().filter_map(Row::waiting).collect();
        if runs.is_empty() {
            continue;
        }
        match Placement::from_text(&first.placement) {
            Ok(placement) => {
                let more = runs.len() == depth;
                seen.lanes.push(Lane { owner: first.owner.clone(), placement, runs, more });
            }
            // It waits for a plane that can read it; the others' runs do not wait with it.
            Err(error) => {
                tracing::error!(error = %error, "a lane's placement cannot be read: {}", first.placement);
            }
        }
    }
    seen
}

impl Row {
    fn waiting(&self) -> Option<Waiting> {
        let (id, priority, since) = (self.id.clone()?, self.priority?, self.created_at?);
        Some(Waiting { id, priority, since })
    }
}

fn bound(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
