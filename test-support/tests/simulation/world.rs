//! The world of one seed: what happens next, one thing after another, in a time of its own. Nothing in it waits
//! for a real clock, so that a minute of misfortune takes a few milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use protocol::ids::{ExecutionId, RunId};
use tokio::{runtime::Runtime, time::Instant};

use super::{
    chance::Chance,
    chaos::Fault,
    container::Container,
    database::Database,
    network::{Arrival, End, Item, Network, Parcel},
    plane::Plane,
    trace::{Outcome, Trace},
    users::Wish,
    worker::Machine,
};

/// Milliseconds since the world began.
pub(crate) type Ms = u64;

/// When that was, by everybody's clock.
pub(crate) const BEGAN_MS: i64 = 1_800_000_000_000;

/// How long everything goes wrong; afterwards nothing does.
const CHAOS: Ms = 60_000;

/// How long the world gets to come to rest. A cancel that its worker does not obey takes ten minutes.
const REST_WITHIN: Ms = 20 * 60_000;

/// How often it is asked whether it has.
const LOOK_EVERY: Ms = 2_000;

/// A part that does not do its work, to see whether that is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A plane acknowledges events it does not store.
    AcknowledgesUnstored,
    /// A worker goes on with what was superseded.
    IgnoresStop,
    /// A worker takes a container's end for success.
    SilenceIsSuccess,
    /// A plane queues a run again without ending its execution.
    ForgetsAnExecution,
    /// A worker hands on something else than the sidecar said.
    SkipsAnEvent,
    /// A worker does not report.
    NeverReports,
    /// A worker does not say which events came before its report.
    ReportsAlone,
}

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Parcel(Parcel),
    /// That end notices that its connection is gone.
    Broken(usize, End),
    PlaneStarts(usize),
    Dispatch(usize, u64),
    Reap(usize, u64),
    WorkerStarts(usize),
    Dial(usize, u64),
    Tick(usize, u64),
    Wish(Wish),
    Fault(Fault),
}

/// What everybody outside the planes knows, to hold their database against.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// What workers were told is stored.
    pub(crate) acknowledged: BTreeMap<(ExecutionId, &'static str), u64>,
    pub(crate) accepted: BTreeMap<RunId, usize>,
    /// Runs somebody wanted stopped, whatever the answer was.
    pub(crate) cancel_asked: BTreeSet<RunId>,
    /// Runs whose cancel was accepted.
    pub(crate) cancel_accepted: BTreeSet<RunId>,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Ms,
    pub(crate) chance: Chance,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) runtime: Runtime,
    pub(crate) database: Database,
    pub(crate) network: Network,
    pub(crate) planes: Vec<Plane>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) containers: BTreeMap<ExecutionId, Container>,
    pub(crate) truth: Truth,
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: Trace,
    /// Submissions that were not accepted yet.
    pub(crate) wishes: usize,
    queue: BTreeMap<(Ms, u64), Happening>,
    scheduled: u64,
    origin: Instant,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        service::backoff::repeat_jitter(seed);
        let runtime = super::runtime();
        let mut chance = Chance::new(seed);
        let mut database = Database::open(&runtime);
        if chance.one_in(2) {
            let most = chance.within(1..=3);
            let sql = format!("insert into tenant_limits values ('tenant0', null, {most}, 0)");
            database.run(&runtime, sql);
        }
        let mut network = Network::default();
        network.evil = chance.one_in(5);
        let planes = (0..=chance.below(2)).map(|_| Plane::new()).collect();
        let machines = (0..=chance.below(3)).map(|n| Machine::new(n, &mut chance)).collect();
        Self {
            seed,
            now: 0,
            chance,
            sabotage: None,
            database,
            runtime,
            network,
            planes,
            machines,
            containers: BTreeMap::new(),
            truth: Truth::default(),
            wrong: Vec::new(),
            trace: Trace::default(),
            wishes: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            origin: Instant::now(),
        }
    }

    pub(crate) fn with(mut self, sabotage: Sabotage) -> Self {
        self.sabotage = Some(sabotage);
        self
    }

    /// Lives through it all.
    pub(crate) fn run(mut self) -> Outcome {
        for plane in 0..self.planes.len() {
            self.after(0, Happening::PlaneStarts(plane));
        }
        for machine in 0..self.machines.len() {
            let wait = self.chance.within(0..=3_000);
            self.after(wait, Happening::WorkerStarts(machine));
        }
        self.plan_wishes(CHAOS);
        self.plan_faults(CHAOS);
        self.go_on_until(CHAOS);
        self.heal();
        let end = CHAOS + REST_WITHIN;
        while self.now < end && self.wrong.is_empty() && !self.is_at_rest() {
            self.go_on_until(self.now + LOOK_EVERY);
        }
        self.audit();
        let (rested_after, executions) = (self.now - CHAOS, self.containers.len());
        let Self { seed, wrong, trace, database, planes, runtime, .. } = self;
        drop(planes);
        database.close(&runtime);
        Outcome { seed, wrong, trace, rested_after, executions }
    }

    fn go_on_until(&mut self, until: Ms) {
        while let Some(next) = self.queue.first_entry() {
            let (at, _) = *next.key();
            if at > until {
                break;
            }
            let happening = next.remove();
            self.advance(at);
            self.happen(happening);
        }
        self.advance(until);
    }

    fn advance(&mut self, at: Ms) {
        let passed = Duration::from_millis(at - self.now);
        self.now = at;
        for clock in
            self.planes.iter().map(|p| &p.clock).chain(self.machines.iter().map(|m| &m.clock))
        {
            clock.advance(passed);
        }
    }

    /// The virtual time as code that counts real time wants it.
    pub(crate) fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    /// An instant as virtual time.
    pub(crate) fn ms(&self, instant: Instant) -> Ms {
        let passed = instant.saturating_duration_since(self.origin);
        u64::try_from(passed.as_micros().div_ceil(1_000)).unwrap_or(Ms::MAX)
    }

    pub(crate) fn after(&mut self, wait: Ms, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    pub(crate) fn at(&mut self, at: Ms, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), happening);
    }

    fn happen(&mut self, happening: Happening) {
        // Whoever is stopped finds everything later, in the order in which it came.
        if let Some(until) = self.held_up(&happening) {
            return self.at(until, happening);
        }
        match happening {
            Happening::Parcel(parcel) => self.parcel(parcel),
            Happening::Broken(link, End::Worker) => self.worker_loses(link),
            Happening::Broken(link, End::Plane) => self.plane_loses(link),
            Happening::PlaneStarts(plane) => self.plane_starts(plane),
            Happening::Dispatch(plane, life) => self.dispatch(plane, life),
            Happening::Reap(plane, life) => self.reap(plane, life),
            Happening::WorkerStarts(machine) => self.worker_starts(machine),
            Happening::Dial(machine, life) => self.worker_dials(machine, life),
            Happening::Tick(machine, life) => {
                self.machines[machine].next_tick = None;
                if self.machines[machine].lives == life {
                    self.worker_works(machine);
                }
            }
            Happening::Wish(wish) => self.wish(wish),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    fn held_up(&self, happening: &Happening) -> Option<Ms> {
        let until = match happening {
            Happening::Parcel(Parcel { link, to: End::Plane, .. })
            | Happening::Broken(link, End::Plane) => {
                self.planes[self.network.links[*link].plane].paused_until
            }
            Happening::Parcel(Parcel { link, to: End::Worker, .. })
            | Happening::Broken(link, End::Worker) => {
                self.machines[self.network.links[*link].machine].paused_until
            }
            Happening::Dispatch(plane, _) | Happening::Reap(plane, _) => {
                self.planes[*plane].paused_until
            }
            Happening::Dial(machine, _) | Happening::Tick(machine, _) => {
                self.machines[*machine].paused_until
            }
            _ => 0,
        };
        (until > self.now).then_some(until)
    }

    fn parcel(&mut self, parcel: Parcel) {
        match self.network.arrive(self.now, &parcel) {
            Arrival::Never => {}
            Arrival::Later(at) => self.at(at, Happening::Parcel(parcel)),
            Arrival::Now if !*self.network.links[parcel.link].open(parcel.to) => {}
            Arrival::Now => match parcel.to {
                End::Plane => self.plane_hears(parcel.link, parcel.item),
                End::Worker => self.worker_hears(parcel.link, parcel.item),
            },
        }
    }

    pub(crate) fn send(&mut self, link: usize, to: End, item: Item) {
        for (at, parcel) in self.network.send(self.now, &mut self.chance, link, to, item) {
            self.at(at, Happening::Parcel(parcel));
        }
    }

    /// Whether the next thing that happens, at the same time, is a frame to the plane on that connection.
    pub(crate) fn more_at_once(&self, link: usize) -> bool {
        self.queue.first_key_value().is_some_and(|((at, _), next)| {
            let to_plane = |parcel: &Parcel| {
                parcel.link == link
                    && parcel.to == End::Plane
                    && matches!(parcel.item, Item::Frame(_))
                    && self.network.may_arrive(*at, parcel)
            };
            *at == self.now && matches!(next, Happening::Parcel(parcel) if to_plane(parcel))
        })
    }

    /// Breaks a connection; each end learns of it soon, or only by silence.
    pub(crate) fn cut(&mut self, link: usize) {
        self.network.cut(&mut self.chance, link);
        for end in [End::Plane, End::Worker] {
            if !self.chance.one_in(4) {
                let wait = self.chance.within(0..=2_000);
                self.after(wait, Happening::Broken(link, end));
            }
        }
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.note(format_args!("WRONG: {what}"));
        self.wrong.push(what);
    }
}
