//! A machine with a worker on it: the real desk and talk, and between them and the network only what the socket's
//! loop does. The process may die and come back; the containers and folders of the machine stay.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    event::Exit,
    ids::{ExecutionId, RunId, WorkerId},
    link::{DiskUse, FromWorker, ToWorker},
};
use service::clock::Clock;
use worker::simulation::{Life, Line};

use super::{
    chance::Chance,
    network::{End, Item},
    tending::{Stage, Tending},
    trace::told,
    world::{BEGAN_MS, Happening, Ms, Sabotage, World},
};

/// A connection that lasted as long makes the next wait short again, as in `service::backoff`.
const FORGET_AFTER: Ms = 30_000;

pub(crate) struct Machine {
    pub(crate) id: WorkerId,
    pub(crate) clock: Clock,
    capacity: u32,
    /// False once it is lost for good, with everything on it.
    pub(crate) alive: bool,
    /// Counts the worker's processes.
    pub(crate) lives: u64,
    pub(crate) process: Option<Process>,
    pub(crate) homes: BTreeMap<ExecutionId, Home>,
    pub(crate) paused_until: Ms,
    pub(crate) next_tick: Option<Ms>,
}

/// The folder of an execution.
pub(crate) struct Home {
    pub(crate) run: RunId,
    begun_ms: i64,
    /// The sidecar's last word, saved before anybody could acknowledge it.
    pub(crate) exit: Option<Exit>,
}

pub(crate) struct Process {
    pub(crate) life: Life,
    talk: Option<(usize, Line)>,
    pub(crate) tended: BTreeMap<ExecutionId, Tending>,
    tries: u32,
    /// Since when it has its present connection.
    dialled: Ms,
    draining: bool,
}

impl Machine {
    pub(crate) fn new(n: usize, chance: &mut Chance) -> Self {
        let capacity = u32::try_from(chance.within(1..=4)).unwrap_or(1);
        Self {
            id: format!("worker-{n}").parse().unwrap(),
            clock: Clock::by_hand(BEGAN_MS),
            capacity,
            alive: true,
            lives: 0,
            process: None,
            homes: BTreeMap::new(),
            paused_until: 0,
            next_tick: None,
        }
    }

    /// Nothing of any execution is left on it.
    pub(crate) fn is_clean(&self) -> bool {
        let idle = self.process.as_ref().is_some_and(|p| p.tended.is_empty() && p.life.is_empty());
        !self.alive || (idle && self.homes.is_empty())
    }
}

impl Home {
    pub(crate) fn new(run: RunId, begun_ms: i64) -> Self {
        Self { run, begun_ms, exit: None }
    }
}

impl World {
    pub(crate) fn worker_starts(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        if machine.process.is_some() || !machine.alive {
            return;
        }
        machine.lives += 1;
        let (id, clock, lives) = (machine.id.clone(), machine.clock.clone(), machine.lives);
        let life = Life::begin(id, format!("{n}-{lives}"), machine.capacity, clock);
        let earlier = machine.homes.iter().map(|(id, home)| {
            let care = life.hold_earlier(home.run.clone(), id.clone(), home.begun_ms);
            (id.clone(), Tending { care, stage: Stage::Unheard })
        });
        let tended: BTreeMap<_, _> = earlier.collect();
        let found: Vec<_> = tended.keys().cloned().collect();
        machine.process =
            Some(Process { life, talk: None, tended, tries: 0, dialled: 0, draining: false });
        self.note(format_args!("worker {n} starts and finds {found:?}"));
        self.after(0, Happening::Dial(n, lives));
        self.sweep(n);
    }

    /// As the sweeper does at a start: containers without a folder belong to nobody.
    fn sweep(&mut self, n: usize) {
        let homes: BTreeSet<_> = self.machines[n].homes.keys().cloned().collect();
        for (id, container) in &mut self.containers {
            if container.machine == n && !homes.contains(id) {
                container.kill(self.now);
                container.removed = true;
            }
        }
    }

    /// Its process is killed. What it had in memory is gone.
    pub(crate) fn worker_dies(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        machine.paused_until = 0;
        let Some(process) = machine.process.take() else { return };
        self.note(format_args!("worker {n} dies"));
        if let Some((link, _)) = process.talk {
            *self.network.links[link].open(End::Worker) = false;
            self.cut(link);
        }
    }

    /// The machine is gone, with everything on it, and says nothing.
    pub(crate) fn machine_is_lost(&mut self, n: usize) {
        self.worker_dies(n);
        self.note(format_args!("machine {n} is lost"));
        self.machines[n].alive = false;
        self.machines[n].homes.clear();
        for container in self.containers.values_mut().filter(|c| c.machine == n) {
            container.kill(self.now);
            container.removed = true;
        }
    }

    /// A first SIGTERM.
    pub(crate) fn worker_drains(&mut self, n: usize) {
        if let Some(process) = &mut self.machines[n].process {
            process.life.drain();
            process.draining = true;
            self.note(format_args!("worker {n} drains"));
            self.worker_works(n);
        }
    }

    /// A second SIGTERM: what runs is stopped, and handed back.
    pub(crate) fn worker_aborts(&mut self, n: usize) {
        if let Some(process) = &mut self.machines[n].process {
            process.life.abort();
            process.draining = true;
            self.note(format_args!("worker {n} aborts"));
            self.worker_works(n);
        }
    }

    pub(crate) fn disk_is(&mut self, n: usize, full: bool) {
        if let Some(process) = &self.machines[n].process {
            let disk = DiskUse { used_bytes: u64::from(full), limit_bytes: Some(1) };
            process.life.measured(disk);
        }
    }

    pub(crate) fn worker_dials(&mut self, n: usize, life: u64) {
        let plane = self.chance.below(self.planes.len());
        if self.machines[n].lives != life {
            return;
        }
        let Some(process) = &self.machines[n].process else { return };
        if process.talk.is_some() {
            return;
        }
        if !self.network.reaches(self.now, n, plane) {
            // Nothing answers: the dial ends by its own bound.
            let wait = self.chance.within(1..=15_000);
            return self.dial_after(n, wait);
        }
        if !self.planes[plane].is_up() {
            return self.dial_later(n);
        }
        let now = self.instant();
        let link = self.network.connect(n, plane);
        let Some(process) = &mut self.machines[n].process else { return };
        let (talk, hello) = process.life.dial(now);
        process.talk = Some((link, talk));
        process.dialled = self.now;
        self.note(format_args!("worker {n} dials plane {plane}: link {link}"));
        self.send(link, End::Plane, Item::Frame(hello.to_json()));
        self.worker_works(n);
    }

    fn dial_later(&mut self, n: usize) {
        let Some(process) = &mut self.machines[n].process else { return };
        if self.now >= process.dialled + FORGET_AFTER {
            process.tries = 0;
        }
        process.dialled = Ms::MAX - FORGET_AFTER;
        process.tries = (process.tries + 1).min(5);
        let ceiling = (125 << process.tries).min(4_000);
        let wait = self.chance.within(0..=ceiling);
        self.dial_after(n, wait);
    }

    fn dial_after(&mut self, n: usize, wait: Ms) {
        let life = self.machines[n].lives;
        self.after(wait, Happening::Dial(n, life));
    }

    pub(crate) fn worker_loses(&mut self, link: usize) {
        if !std::mem::take(self.network.links[link].open(End::Worker)) {
            return;
        }
        let n = self.network.links[link].machine;
        let Some(process) = &mut self.machines[n].process else { return };
        if process.talk.take_if(|(present, _)| *present == link).is_some() {
            self.note(format_args!("worker {n} loses link {link}"));
            self.dial_later(n);
        }
    }

    pub(crate) fn worker_hears(&mut self, link: usize, item: Item) {
        let (n, now) = (self.network.links[link].machine, self.instant());
        let Some(process) = &mut self.machines[n].process else { return };
        let Some((_, talk)) = process.talk.as_mut().filter(|(present, _)| *present == link) else {
            return;
        };
        let text = match item {
            Item::Frame(text) => text,
            Item::Pong => return talk.sign(now),
            Item::Close => return self.worker_loses(link),
        };
        let frame = ToWorker::parse(&text).expect("a plane writes what a worker can read");
        let acknowledged = match &frame {
            ToWorker::Ack(ack) => Some((ack.execution_id.clone(), ack.source.as_str(), ack.seq)),
            ToWorker::TaskAssignment(assignment) => {
                self.trace.name("run ", assignment.task_id.as_str());
                self.trace.name("execution ", assignment.execution_id.as_str());
                None
            }
            _ => None,
        };
        let heard = told(&frame);
        let answer = process.life.hear(talk, frame, now);
        if let Some((id, source, seq)) = acknowledged {
            let known = self.truth.acknowledged.entry((id, source)).or_default();
            *known = seq.max(*known);
        }
        self.note(format_args!("worker {n} hears on {link}: {heard}"));
        match answer {
            Ok(None) => {}
            Ok(Some((care, _))) => {
                let at = self.now + self.chance.within(0..=20);
                let id = care.execution_id().clone();
                let tending = Tending { care, stage: Stage::Taken(at) };
                if let Some(process) = &mut self.machines[n].process {
                    process.tended.insert(id, tending);
                }
            }
            Err(error) => {
                self.note(format_args!("worker {n} gives link {link} up: {error}"));
                self.worker_hangs_up(n);
            }
        }
        self.worker_works(n);
    }

    fn worker_hangs_up(&mut self, n: usize) {
        let Some(process) = &mut self.machines[n].process else { return };
        if let Some((link, _)) = process.talk.take() {
            *self.network.links[link].open(End::Worker) = false;
            self.send(link, End::Plane, Item::Close);
            self.dial_later(n);
        }
    }

    /// Everything there is to do by now: executions, the line, and what is to be said.
    pub(crate) fn worker_works(&mut self, n: usize) {
        if self.machines[n].paused_until > self.now {
            return;
        }
        let mut wakes_at = self.tend_all(n);
        let now = self.instant();
        let Some(Process { life, talk, draining, .. }) = &mut self.machines[n].process else {
            return;
        };
        if let Some((link, talk)) = talk {
            if let Some(why) = talk.overdue(now) {
                let link = *link;
                self.note(format_args!("worker {n} gives link {link} up: {why}"));
                return self.worker_hangs_up(n);
            }
            let link = *link;
            let frames: Vec<FromWorker> = std::iter::from_fn(|| life.next(talk, now)).collect();
            let talk_wakes_at = talk.wakes_at();
            for mut frame in frames {
                if self.sabotage == Some(Sabotage::ReportsAlone)
                    && let FromWorker::TaskCompleted(completed) = &mut frame
                {
                    completed.after = None;
                }
                self.send(link, End::Plane, Item::Frame(frame.to_json()));
            }
            wakes_at = wakes_at.min(self.ms(talk_wakes_at));
        } else if *draining && life.is_empty() {
            return self.worker_ends(n);
        }
        if let Some(Process { life, draining: true, .. }) = &self.machines[n].process
            && life.is_empty()
        {
            return self.worker_ends(n);
        }
        self.wake_worker(n, wakes_at);
    }

    /// Drained; started again after a while, as a service is.
    fn worker_ends(&mut self, n: usize) {
        self.note(format_args!("worker {n} has drained"));
        self.worker_hangs_up(n);
        self.machines[n].process = None;
        let wait = self.chance.within(0..=10_000);
        self.after(wait, Happening::WorkerStarts(n));
    }

    fn wake_worker(&mut self, n: usize, at: Ms) {
        let at = at.max(self.now + 1);
        let machine = &mut self.machines[n];
        if at < Ms::MAX && machine.next_tick.is_none_or(|next| next > at) {
            machine.next_tick = Some(at);
            let life = machine.lives;
            self.at(at, Happening::Tick(n, life));
        }
    }
}
