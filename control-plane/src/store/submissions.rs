//! Runs being submitted: stored once for each key, while the queue has room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    ids::{EnvironmentId, RunId, TenantId},
    retry::RetryPolicy,
    run::Standing,
};
use sqlx::error::DatabaseError;

use super::{
    Idempotency, Store, StoreError, Tx, bounded,
    idempotency::Earlier,
    json, on_tx,
    transitions::{Head, NewEvent},
    values::{Values, send_values},
};
use crate::placement::Placement;

/// A run about to be stored.
#[derive(Debug, Clone)]
pub struct InsertRun {
    pub id: RunId,
    pub owner: TenantId,
    pub max_attempts: u32,
    pub title: String,
    pub name: Option<String>,
    pub prompt: String,
    pub config: String,
    pub metadata: BTreeMap<String, String>,
    pub source: String,
    pub environment_id: Option<EnvironmentId>,
    pub model_id: Option<String>,
    pub worker_host: Option<String>,
    pub placement: Placement,
    /// Higher ones first, among its owner's.
    pub priority: i32,
    /// How long one wait in the queue may last.
    pub queue_ms: Option<i64>,
    pub retry: RetryPolicy,
    pub parent_run_id: Option<RunId>,
    /// JSON: the environment as it is now.
    pub snapshot: String,
    /// Its values, sealed for `environment_id`.
    pub env_sealed: Option<Vec<u8>>,
    /// Its MCP servers, sealed for its id.
    pub mcp_sealed: Option<Vec<u8>>,
    /// The conversation it goes on with, which must have nothing under way.
    pub conversation_id: Option<RunId>,
    pub idempotency: Option<Idempotency>,
    /// Runs of an owner without a limit of its own that may wait; 0 for no bound.
    pub max_queued: u32,
    /// Worker connections heard of since then count as capacity.
    pub seen_since: i64,
    pub now: i64,
}

impl InsertRun {
    /// About how many bytes it is.
    pub(super) fn size(&self) -> usize {
        let sealed = [&self.env_sealed, &self.mcp_sealed].into_iter().flatten().map(Vec::len);
        self.prompt.len() + self.config.len() + self.snapshot.len() + sealed.sum::<usize>()
    }
}

/// What became of a run about to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// Stored; or stored before, under the same key by the same request.
    Run { id: RunId, at_capacity: bool, repeated: bool },
    /// The key was used for another request.
    KeyMismatch,
    /// As many as may wait do: so many.
    QueueFull(u32),
    /// Another run of its conversation is not over.
    Busy(RunId),
}

/// What the writer remembers between groups, so that a submission need not count what waits each time. It is
/// thrown away whenever a group fails.
#[derive(Debug, Default)]
pub(super) struct Memory {
    queues: HashMap<TenantId, Queue>,
    slots: Option<Slots>,
    /// Grows whenever connections or limits change; what was counted before is forgotten then.
    changes: Arc<AtomicU64>,
    seen: u64,
}

/// Owners remembered; beyond it all of them are counted anew.
const MAX_OWNERS: usize = 4_096;

/// For how long a count is good, although other planes and retries add to it.
const COUNT_TTL: Duration = Duration::from_secs(1);

/// For how long the number of free slots is good: it is a hint for whoever waits.
const SLOTS_TTL: Duration = Duration::from_millis(200);

/// So near to the bound every submission is counted exactly.
const MARGIN: i64 = 64;

/// How many runs of one owner wait.
#[derive(Debug, Clone, Copy)]
struct Queue {
    counted: i64,
    /// The owner's own limit.
    own: Option<u32>,
    at: Instant,
    /// Stored since it was counted.
    added: i64,
}

#[derive(Debug, Clone, Copy)]
struct Slots {
    free: i64,
    at: Instant,
}

impl Memory {
    pub(super) fn of(changes: Arc<AtomicU64>) -> Self {
        Self { changes, ..Self::default() }
    }

    /// Forgets what changed since the last group.
    fn refresh(&mut self) {
        let now = self.changes.load(Ordering::Acquire);
        if now != self.seen {
            self.forget();
            self.seen = now;
        }
    }

    /// Forgets everything it counted.
    pub(super) fn forget(&mut self) {
        (self.queues, self.slots) = (HashMap::new(), None);
    }

    /// So many runs are over.
    pub(super) fn freed(&mut self, slots: usize) {
        if let Some(known) = &mut self.slots {
            known.free += i64::try_from(slots).unwrap_or(i64::MAX);
        }
    }
}

impl Queue {
    /// How many may wait; `None` without a bound.
    fn most(&self, default: u32) -> Option<u32> {
        bounded(self.own.unwrap_or(default))
    }

    /// Whether there is room for more for certain. Others may have added as many as we did meanwhile.
    fn has_room(&self, default: u32) -> bool {
        let known = self.counted + 2 * self.added + MARGIN;
        self.at.elapsed() < COUNT_TTL
            && self.most(default).is_none_or(|most| known < i64::from(most))
    }
}

impl Store {
    /// Stores a run and its first event, unless its key was used or its owner has too many waiting.
    pub async fn insert_run(&self, new: &InsertRun) -> Result<Inserted, StoreError> {
        self.hand_in_run(new.clone()).await?.await
    }
}

/// The submissions of one group: what is known of their keys and queues, and what is to be stored of them.
pub(super) struct Arrivals<'a, 'm> {
    memory: &'m mut Memory,
    earlier: HashMap<(&'a TenantId, &'a str), Earlier>,
    /// How many of each owner may wait, and how many more of them there is room for.
    room: HashMap<&'a TenantId, (u32, i64)>,
    /// The run under way of each conversation that has one.
    open: HashMap<&'a RunId, RunId>,
    new: Vec<New<'a>>,
}

struct New<'a> {
    run: &'a InsertRun,
    at_capacity: bool,
}

impl<'a, 'm> Arrivals<'a, 'm> {
    /// Reads what the submissions of a group are judged by.
    pub(super) async fn read(
        tx: &mut Tx,
        memory: &'m mut Memory,
        runs: &[&'a InsertRun],
    ) -> Result<Self, StoreError> {
        // Counted no further than to where there is no room.
        const WAITING: &str = "with own as (select max_queued from tenant_limits where owner = $1)
             select (select max_queued from own), (select count(*) from (
                 select 1 from runs where owner = $1 and state = 'QUEUED'
                 limit coalesce((select max_queued from own), $2)) waiting)";
        memory.refresh();
        let mut this = Self {
            memory,
            earlier: HashMap::new(),
            room: HashMap::new(),
            open: HashMap::new(),
            new: vec![],
        };
        for new in runs {
            if let Some(key) = &new.idempotency
                && let Some(earlier) = tx.earlier(&new.owner, key).await?
            {
                this.earlier.insert((&new.owner, &key.key), earlier);
            }
            if let Some(conversation) = &new.conversation_id
                && let Some(open) = tx.open_run(conversation).await?
            {
                this.open.insert(conversation, open);
            }
            if this.room.contains_key(&new.owner) {
                continue;
            }
            let known = this.memory.queues.get(&new.owner).copied();
            let queue = if let Some(known) = known.filter(|queue| queue.has_room(new.max_queued)) {
                known
            } else {
                let (own, counted): (Option<i64>, i64) =
                    on_tx!(&mut *tx, |db| sqlx::query_as(WAITING)
                        .bind(new.owner.as_str())
                        .bind(i64::from(new.max_queued))
                        .fetch_one(db)
                        .await)?;
                if this.memory.queues.len() >= MAX_OWNERS {
                    this.memory.queues.clear();
                }
                let own = own.and_then(|own| u32::try_from(own).ok());
                let queue = Queue { counted, own, at: Instant::now(), added: 0 };
                this.memory.queues.insert(new.owner.clone(), queue);
                queue
            };
            let most = queue.most(new.max_queued);
            let room = most.map_or(i64::MAX, |most| i64::from(most) - queue.counted - queue.added);
            this.room.insert(&new.owner, (most.unwrap_or_default(), room));
            this.count_slots(tx, new.seen_since).await?;
        }
        Ok(this)
    }

    async fn count_slots(&mut self, tx: &mut Tx, seen_since: i64) -> Result<(), StoreError> {
        let fresh = |slots: &Slots| slots.at.elapsed() < SLOTS_TTL;
        if !self.memory.slots.as_ref().is_some_and(fresh) {
            let free = tx.free_slots(seen_since).await?;
            self.memory.slots = Some(Slots { free, at: Instant::now() });
        }
        Ok(())
    }

    /// Takes a run, unless its key was used or there is no room for it.
    pub(super) fn insert(
        &mut self,
        new: &'a InsertRun,
        events: &mut Vec<NewEvent<'_>>,
    ) -> Result<Inserted, StoreError> {
        if let Some(key) = &new.idempotency
            && let Some(earlier) = self.earlier.get(&(&new.owner, key.key.as_str()))
        {
            return key.answer(earlier.clone());
        }
        if let Some(conversation) = &new.conversation_id
            && let Some(open) = self.open.get(conversation)
        {
            return Ok(Inserted::Busy(open.clone()));
        }
        let (most, room) = self.room.entry(&new.owner).or_default();
        if *room <= 0 {
            return Ok(Inserted::QueueFull(*most));
        }
        *room -= 1;
        if let Some(conversation) = &new.conversation_id {
            self.open.insert(conversation, new.id.clone());
        }
        if let Some(queue) = self.memory.queues.get_mut(&new.owner) {
            queue.added += 1;
        }
        let at_capacity = self.memory.slots.as_mut().is_none_or(|slots| {
            slots.free -= 1;
            slots.free < 0
        });
        if let Some(key) = &new.idempotency {
            let earlier =
                (new.id.to_string(), Some(key.request_hash.clone()), i64::from(at_capacity));
            self.earlier.insert((&new.owner, &key.key), earlier);
        }
        Head::new(new).tell_state(new.now, events);
        self.new.push(New { run: new, at_capacity });
        Ok(Inserted::Run { id: new.id.clone(), at_capacity, repeated: false })
    }

    /// Writes the runs that were taken; their first events are among the group's. Tells whether there were any.
    pub(super) async fn write(self, tx: &mut Tx) -> Result<bool, StoreError> {
        if self.new.is_empty() {
            return Ok(false);
        }
        match tx.insert_runs(&self.new).await {
            // Two requests with one key at the same time: the other one was first.
            Err(StoreError::Unavailable(error))
                if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) =>
            {
                Err(StoreError::Conflict)
            }
            other => other.map(|()| true),
        }
    }
}

impl Tx {
    async fn insert_runs(&mut self, runs: &[New<'_>]) -> Result<(), StoreError> {
        static RUNS: Values = Values::new(
            "with v(id, owner, state, max_attempts, title, name, prompt, config, metadata, source,
                    environment_id, model_id, worker_host, parent_run_id, snapshot, env_sealed,
                    idempotency_key, request_hash, at_capacity, created_at, placement, priority,
                    queue_ms, queue_until, retry, mcp_sealed, conversation_id) as (values ",
            27,
            ") insert into runs
             (id, owner, state, cancelling, version, attempt, max_attempts, title, name, prompt,
              config, metadata, source, environment_id, model_id, worker_host, parent_run_id,
              snapshot, env_sealed, idempotency_key, request_hash, at_capacity, created_at,
              updated_at, queued_at, not_before, last_seq, phases, placement, priority, queue_ms,
              queue_until, retry, mcp_sealed, conversation_id)
             select id, owner, state, 0, 1, 0, max_attempts, title, name, prompt,
              config, metadata, source, environment_id, model_id, worker_host, parent_run_id,
              snapshot, env_sealed, idempotency_key, request_hash, at_capacity, created_at,
              created_at, created_at, created_at, 1, '{}', placement, priority, queue_ms,
              queue_until, retry, mcp_sealed, conversation_id
             from v where id is not null",
        );
        static METADATA: Values = Values::new(
            "with v(run_id, key, value) as (values ",
            3,
            ") insert into run_metadata (run_id, key, value)
             select run_id, key, value from v where run_id is not null",
        );
        let key = |new: &New<'_>| new.run.idempotency.clone();
        send_values!(self, RUNS, runs, |query, new| query
            .bind(new.map(|n| n.run.id.as_str()))
            .bind(new.map(|n| n.run.owner.as_str()))
            .bind(new.map(|_| Standing::QUEUED.state.as_str()))
            .bind(new.map(|n| i64::from(n.run.max_attempts)))
            .bind(new.map(|n| n.run.title.as_str()))
            .bind(new.and_then(|n| n.run.name.as_deref()))
            .bind(new.map(|n| n.run.prompt.as_str()))
            .bind(new.map(|n| n.run.config.as_str()))
            .bind(new.map(|n| json(&n.run.metadata)))
            .bind(new.map(|n| n.run.source.as_str()))
            .bind(new.and_then(|n| n.run.environment_id.as_ref().map(EnvironmentId::as_str)))
            .bind(new.and_then(|n| n.run.model_id.as_deref()))
            .bind(new.and_then(|n| n.run.worker_host.as_deref()))
            .bind(new.and_then(|n| n.run.parent_run_id.as_ref().map(RunId::as_str)))
            .bind(new.map(|n| n.run.snapshot.as_str()))
            .bind(new.and_then(|n| n.run.env_sealed.as_deref()))
            .bind(new.and_then(key).map(|key| key.key))
            .bind(new.and_then(key).map(|key| key.request_hash))
            .bind(new.map(|n| i64::from(n.at_capacity)))
            .bind(new.map(|n| n.run.now))
            .bind(new.map(|n| n.run.placement.to_text()))
            .bind(new.map(|n| i64::from(n.run.priority)))
            .bind(new.and_then(|n| n.run.queue_ms))
            .bind(new.and_then(|n| n.run.queue_ms.map(|ms| n.run.now.saturating_add(ms))))
            .bind(new.map(|n| json(&n.run.retry)))
            .bind(new.and_then(|n| n.run.mcp_sealed.as_deref()))
            .bind(new.and_then(|n| n.run.conversation_id.as_ref().map(RunId::as_str))));
        let metadata: Vec<_> = runs
            .iter()
            .flat_map(|new| new.run.metadata.iter().map(|(key, value)| (&new.run.id, key, value)))
            .collect();
        send_values!(self, METADATA, metadata, |query, row| query
            .bind(row.map(|(id, ..)| id.as_str()))
            .bind(row.map(|(_, key, _)| key.as_str()))
            .bind(row.map(|(.., value)| value.as_str())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_weighs_too() {
        let new = InsertRun {
            id: "r".parse().unwrap(),
            owner: "a".parse().unwrap(),
            max_attempts: 1,
            title: String::new(),
            name: None,
            prompt: "four".to_owned(),
            config: "{}".to_owned(),
            metadata: BTreeMap::new(),
            source: String::new(),
            environment_id: None,
            model_id: None,
            worker_host: None,
            placement: Placement::default(),
            priority: 0,
            queue_ms: None,
            retry: RetryPolicy::default(),
            parent_run_id: None,
            snapshot: "{}".to_owned(),
            env_sealed: Some(vec![0; 100]),
            mcp_sealed: Some(vec![0; 1_000]),
            conversation_id: None,
            idempotency: None,
            max_queued: 0,
            seen_since: 0,
            now: 0,
        };
        assert_eq!(new.size(), 1_108);
    }
}
