//! What the plane's parts share: the store, the time, the settings, the hints. It holds no truth of its own.

use std::{
    fs::File,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use protocol::spec::{ProviderKind, Timeouts};
use service::{clock::Clock, lifecycle::Lifecycle};

use crate::{
    counters::Counters,
    link::registry::Registry,
    sealing::Sealer,
    store::{Store, millis},
    timeouts::Ceilings,
    wake::Wake,
};

/// Choices of the operator that the core obeys. `Config` of the application makes one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Without a heartbeat for this long an execution counts as lost.
    pub lease: Duration,
    /// How often a worker says which executions it holds; at most a third of the lease.
    pub heartbeat: Duration,
    /// How long a worker may take to answer an assignment before the run is queued again.
    pub claim_timeout: Duration,
    /// Executions of one run, the first included.
    pub max_attempts: u32,
    /// The longest wait before a second attempt; it doubles with each further one, up to a minute.
    pub retry_wait: Duration,
    /// Who answers where neither a run nor its environment says.
    pub default_harness: ProviderKind,
    /// Whether workers keep what a run leaves for one that goes on with it.
    pub keep_sessions: bool,
    /// For runs without an environment; without one such runs are refused.
    pub default_image: Option<String>,
    /// What stock workers mount at `/agent`; without one they are given nothing.
    pub sidecar_image: Option<String>,
    /// Runs one tenant may have waiting; the next one is refused as `QueueFull`. 0 for no bound.
    pub max_queued: u32,
    /// Runs one tenant may have under way; the others wait. 0 for no bound.
    pub max_running: u32,
    /// Environments one tenant may have; the next one is refused as `TooMany`.
    pub max_environments: u32,
    /// How long a worker may take to say `hello` before it counts as a stock worker.
    pub hello_timeout: Duration,
    /// How long a stock worker's executions outlive its connection: its longest wait to dial is 60 s.
    pub stock_lease: Duration,
    /// Executions handed to one stock worker at a time; it announces no capacity.
    pub stock_capacity: u32,
    /// Bounds of a run where neither it nor its environment says one.
    pub timeouts: Timeouts,
    /// What nobody may exceed.
    pub ceilings: Ceilings,
    /// How long runs may wait beyond their bound after the plane's start, a standstill, or the database's
    /// absence: for that long nobody could have taken them.
    pub queue_grace: Duration,
    /// Runs that ended longer ago than this are deleted; `None` keeps them.
    pub run_retention: Option<Duration>,
    /// Events and artifacts of runs that ended longer ago than this are deleted; `None` keeps them as long as
    /// the run.
    pub event_retention: Option<Duration>,
    /// How often it is looked what is old enough.
    pub retention_interval: Duration,
    /// Streams of events one tenant may follow at a time; the next one is refused.
    pub max_streams: u32,
    /// The safety net under every wake-up: how often a loop looks although nobody called.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(12),
            heartbeat: Duration::from_secs(4),
            claim_timeout: Duration::from_secs(30),
            max_attempts: 3,
            retry_wait: Duration::from_secs(2),
            default_harness: ProviderKind::Claude,
            keep_sessions: true,
            default_image: None,
            sidecar_image: None,
            max_queued: 10_000,
            max_running: 0,
            max_environments: 1_000,
            hello_timeout: Duration::from_secs(5),
            stock_lease: Duration::from_secs(90),
            stock_capacity: 4,
            timeouts: Timeouts::default(),
            ceilings: Ceilings::default(),
            queue_grace: Duration::from_mins(1),
            run_retention: Some(days(30)),
            event_retention: None,
            retention_interval: Duration::from_hours(1),
            max_streams: 100,
            poll: Duration::from_millis(500),
        }
    }
}

/// The shared parts of one plane; everybody holds it as `Arc<Core>`.
#[derive(Debug)]
pub struct Core {
    pub store: Store,
    pub clock: Clock,
    pub life: Lifecycle,
    pub settings: Settings,
    pub sealer: Sealer,
    /// Who is connected right now; a hint, never asked whether a run exists.
    pub workers: Registry,
    pub wake: Wake,
    pub counters: Counters,
    /// New with every start of the process.
    pub plane_id: String,
    pub(crate) agreed: Agreed,
    /// Before then silence proves nothing, by the time all planes agree on.
    reap_from: AtomicI64,
    /// Before then a run that waited too long may still be taken.
    expire_from: AtomicI64,
    /// Keeps other planes off the database, where only one may be.
    held: OnceLock<File>,
}

impl Core {
    pub fn new(
        store: Store,
        sealer: Sealer,
        clock: Clock,
        life: Lifecycle,
        settings: Settings,
    ) -> Arc<Self> {
        let now = clock.now_ms();
        let reap_from = AtomicI64::new(now + millis(settings.lease));
        let expire_from = AtomicI64::new(now + millis(settings.queue_grace));
        Arc::new(Self {
            store,
            clock,
            life,
            settings,
            sealer,
            workers: Registry::default(),
            wake: Wake::default(),
            counters: Counters::default(),
            plane_id: uuid::Uuid::now_v7().simple().to_string(),
            agreed: Agreed::default(),
            reap_from,
            expire_from,
            held: OnceLock::new(),
        })
    }

    /// Keeps this lock for as long as the core lives.
    pub(crate) fn hold(&self, lock: Option<File>) {
        if let Some(lock) = lock {
            // A core has one database, and so one lock.
            let _ = self.held.set(lock);
        }
    }

    /// Workers could not be heard for a while, nor runs be handed to them: they get one lease to speak up, and
    /// waiting runs a while to be taken.
    pub(crate) fn expect_silence(&self) {
        let now = self.now();
        self.reap_from.store(now + millis(self.settings.lease), Ordering::Relaxed);
        self.expire_from.store(now + millis(self.settings.queue_grace), Ordering::Relaxed);
    }

    pub(crate) fn reap_from(&self) -> i64 {
        self.reap_from.load(Ordering::Relaxed)
    }

    pub(crate) fn expire_from(&self) -> i64 {
        self.expire_from.load(Ordering::Relaxed)
    }

    /// Milliseconds since 1970, by the time all planes of the database agree on.
    pub fn now(&self) -> i64 {
        self.clock.now_ms().saturating_add(self.agreed.ahead_ms())
    }
}

/// By how much the agreed time is ahead of this machine's.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) ahead_ms: AtomicI64,
    /// Every step ahead that was seen in this life, together.
    pub(crate) stepped_ms: AtomicI64,
}

impl Agreed {
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }
}

pub(crate) const fn days(n: u64) -> Duration {
    Duration::from_hours(24 * n)
}
