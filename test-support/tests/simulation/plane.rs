//! A plane: the real core on the shared database, and between it and the network only what a socket's loop does.

use std::{collections::BTreeMap, sync::Arc};

use control_plane::{
    core::{Core, Settings},
    dispatch,
    link::{Line, Peer},
    reaper,
    sealing::Sealer,
    store::StoreError,
};
use protocol::{
    ids::WorkerId,
    link::{Ack, FromWorker, ToWorker},
};
use service::{clock::Clock, lifecycle::Lifecycle};
use tokio::sync::watch;

use super::{
    network::{End, Item},
    trace::said,
    world::{BEGAN_MS, Happening, Ms, Sabotage, World},
};

/// A worker that says nothing for as long as a lease is gone, as a socket's loop has it.
const SILENCE: Ms = 12_000;

/// How often a plane looks although nobody called; rarer than in truth, for speed.
const POLL: std::ops::RangeInclusive<Ms> = 1_000..=3_000;

pub(crate) struct Plane {
    pub(crate) clock: Clock,
    /// Counts its processes.
    pub(crate) life: u64,
    process: Option<Process>,
    pub(crate) paused_until: Ms,
    /// It ends between a commit and its answer, the next time there is one.
    pub(crate) ends_unanswered: bool,
}

struct Process {
    core: Arc<Core>,
    peers: BTreeMap<usize, Peering>,
    woken: watch::Receiver<()>,
    watch: reaper::Watch,
}

struct Peering {
    peer: Peer,
    queue: Line,
    /// When the worker last gave a sign of life; it answers pings.
    heard: Ms,
}

impl Plane {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::by_hand(BEGAN_MS),
            life: 0,
            process: None,
            paused_until: 0,
            ends_unanswered: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        self.process.as_ref().map(|process| process.core.clone())
    }
}

impl World {
    pub(crate) fn plane_starts(&mut self, n: usize) {
        if self.planes[n].is_up() {
            return;
        }
        let settings = Settings { default_image: Some("image".to_owned()), ..Settings::default() };
        let (store, clock) = (self.database.store.clone(), self.planes[n].clock.clone());
        // Inside the runtime: what a core starts runs there.
        let entered = self.runtime.enter();
        let core = Core::new(store, Sealer::new(&[7; 32]), clock, Lifecycle::new(), settings);
        drop(entered);
        let (woken, watch) = (core.wake.on_queue(), reaper::Watch::new(&core));
        let plane = &mut self.planes[n];
        plane.life += 1;
        plane.ends_unanswered = false;
        plane.process = Some(Process { core, peers: BTreeMap::new(), woken, watch });
        let life = plane.life;
        self.note(format_args!("plane {n} starts"));
        self.after(0, Happening::Dispatch(n, life));
        self.after(1, Happening::Reap(n, life));
    }

    /// Its process is killed: whatever was not in the database is gone.
    pub(crate) fn plane_dies(&mut self, n: usize) {
        let Some(process) = self.planes[n].process.take() else { return };
        self.note(format_args!("plane {n} dies"));
        self.planes[n].paused_until = 0;
        for link in process.peers.into_keys() {
            self.plane_lets_go(link);
        }
        for link in self.network.open_links() {
            if self.network.links[link].plane == n {
                self.plane_lets_go(link);
            }
        }
    }

    fn plane_lets_go(&mut self, link: usize) {
        if std::mem::take(self.network.links[link].open(End::Plane)) {
            self.cut(link);
        }
    }

    /// It is told to stop, and closes its connections.
    pub(crate) fn plane_stops(&mut self, n: usize) {
        let Some(process) = self.planes[n].process.take() else { return };
        self.note(format_args!("plane {n} stops"));
        for (link, mut peering) in process.peers {
            self.forward(link, &mut peering.queue);
            self.plane_closes(link, peering);
        }
        for link in self.network.open_links() {
            if self.network.links[link].plane == n {
                *self.network.links[link].open(End::Plane) = false;
                self.send(link, End::Worker, Item::Close);
            }
        }
    }

    fn plane_closes(&mut self, link: usize, peering: Peering) {
        let n = self.network.links[link].plane;
        self.note(format_args!("plane {n} closes link {link}"));
        self.runtime.block_on(peering.peer.close());
        if std::mem::take(self.network.links[link].open(End::Plane)) {
            self.send(link, End::Worker, Item::Close);
        }
    }

    /// The worker's end is gone, or the line to it.
    pub(crate) fn plane_loses(&mut self, link: usize) {
        if !std::mem::take(self.network.links[link].open(End::Plane)) {
            return;
        }
        let n = self.network.links[link].plane;
        let peering = self.planes[n].process.as_mut().and_then(|p| p.peers.remove(&link));
        if let Some(peering) = peering {
            self.note(format_args!("plane {n} loses link {link}"));
            self.runtime.block_on(peering.peer.close());
        }
        self.plane_goes_on(n);
    }

    pub(crate) fn plane_hears(&mut self, link: usize, item: Item) {
        let n = self.network.links[link].plane;
        let text = match item {
            Item::Frame(text) => text,
            Item::Pong => return,
            Item::Close => return self.plane_loses(link),
        };
        let frame = FromWorker::parse(&text).expect("a worker writes what a plane can read");
        if matches!(frame, FromWorker::Heartbeat(_)) {
            // It was followed by a ping.
            self.send(link, End::Worker, Item::Pong);
        }
        if self.sabotage == Some(Sabotage::AcknowledgesUnstored)
            && let FromWorker::Events(events) = &frame
            && self.chance.one_in(10)
        {
            let seq = events.events.last().map_or(0, |line| line.seq);
            let (execution_id, source) = (events.execution_id.clone(), events.source);
            let ack = ToWorker::Ack(Ack { execution_id, source, seq });
            return self.send(link, End::Worker, Item::Frame(ack.to_json()));
        }
        self.note(format_args!("plane {n} hears on {link}: {}", said(&frame)));
        let Some(mut process) = self.planes[n].process.take() else { return };
        let worker = &self.machines[self.network.links[link].machine].id;
        let heard = self.runtime.block_on(process.hear(link, self.now, worker, frame));
        let closes = match heard {
            Ok(()) => false,
            Err(error) => {
                self.note(format_args!("plane {n} fails: {error}"));
                true
            }
        };
        let peering = process.peers.remove(&link);
        self.planes[n].process = Some(process);
        if self.planes[n].ends_unanswered && !self.more_at_once(link) {
            if let Some(peering) = peering {
                // In the database, should it be there; the answers go with the process.
                self.keep(n, link, peering);
                self.plane_answers(n, link);
            }
            let wait = self.chance.within(0..=15_000);
            self.after(wait, Happening::PlaneStarts(n));
            return self.plane_dies(n);
        }
        match peering {
            Some(peering) if closes => self.plane_closes(link, peering),
            // What comes at the same time shares a commit with it.
            Some(peering) if self.more_at_once(link) => self.keep(n, link, peering),
            Some(peering) => {
                self.keep(n, link, peering);
                self.plane_answers(n, link);
            }
            None => {
                // The worker could not be taken in.
                *self.network.links[link].open(End::Plane) = false;
                self.send(link, End::Worker, Item::Close);
            }
        }
        self.plane_goes_on(n);
    }

    fn keep(&mut self, n: usize, link: usize, peering: Peering) {
        if let Some(process) = &mut self.planes[n].process {
            process.peers.insert(link, peering);
        }
    }

    /// Waits for what the store makes of everything that was taken.
    fn plane_answers(&mut self, n: usize, link: usize) {
        let peering = self.planes[n].process.as_mut().and_then(|p| p.peers.remove(&link));
        let Some(mut peering) = peering else { return };
        let answered = self.runtime.block_on(async {
            while peering.peer.owes() {
                peering.peer.answered().await?;
            }
            Ok::<_, StoreError>(())
        });
        match answered {
            Ok(()) => self.keep(n, link, peering),
            Err(error) => {
                self.note(format_args!("plane {n} fails: {error}"));
                self.plane_closes(link, peering);
            }
        }
    }

    /// Whatever a plane did: what it has to say goes out, connections it gave up are closed, and dispatch looks.
    pub(crate) fn plane_goes_on(&mut self, n: usize) {
        let Some(mut process) = self.planes[n].process.take() else { return };
        let links: Vec<_> = process.peers.keys().copied().collect();
        for link in links {
            let Some(mut peering) = process.peers.remove(&link) else { continue };
            self.forward(link, &mut peering.queue);
            if peering.peer.is_closing() || self.now >= peering.heard + SILENCE {
                self.plane_closes(link, peering);
            } else {
                process.peers.insert(link, peering);
            }
        }
        let woken = process.woken.has_changed().unwrap_or(false);
        process.woken.borrow_and_update();
        self.planes[n].process = Some(process);
        if woken {
            let (life, wait) = (self.planes[n].life, self.chance.within(1..=10));
            self.after(wait, Happening::Dispatch(n, life));
            // The hint to the other planes, which may be lost.
            for other in (0..self.planes.len()).filter(|other| *other != n) {
                if !self.chance.one_in(3) {
                    let life = self.planes[other].life;
                    self.after(wait + 5, Happening::Dispatch(other, life));
                }
            }
        }
    }

    fn forward(&mut self, link: usize, queue: &mut Line) {
        while let Some(frame) = queue.try_recv() {
            self.send(link, End::Worker, Item::Frame(frame.to_json()));
        }
    }

    /// The database sabotaged: as a plane would that forgot to end what it queues again.
    fn forget_an_execution(&mut self) {
        let sql = "update runs set state = 'QUEUED', execution_id = null, worker_id = null
             where id = (select id from runs where state = 'INPROGRESS' limit 1)";
        self.database.run(&self.runtime, sql.to_owned());
    }

    pub(crate) fn dispatch(&mut self, n: usize, life: u64) {
        let Some(core) = self.alive(n, life) else { return };
        if self.sabotage == Some(Sabotage::ForgetsAnExecution) && self.chance.one_in(10) {
            self.forget_an_execution();
        }
        if let Err(error) = self.runtime.block_on(dispatch::pass(&core)) {
            self.note(format_args!("dispatch of plane {n} fails: {error}"));
        }
        drop(core);
        self.plane_goes_on(n);
    }

    pub(crate) fn reap(&mut self, n: usize, life: u64) {
        let plane = &mut self.planes[n];
        let Some(Process { core, watch, .. }) = &mut plane.process else { return };
        if plane.life != life {
            return;
        }
        if let Err(error) = self.runtime.block_on(reaper::round(core, watch)) {
            self.note(format_args!("reaping of plane {n} fails: {error}"));
        }
        self.plane_goes_on(n);
        let wait = self.chance.within(POLL);
        self.after(wait, Happening::Reap(n, life));
        // The same wait serves both loops.
        self.after(wait, Happening::Dispatch(n, life));
    }

    fn alive(&self, n: usize, life: u64) -> Option<Arc<Core>> {
        self.planes[n].core().filter(|_| self.planes[n].life == life)
    }
}

impl Process {
    async fn hear(
        &mut self,
        link: usize,
        now: Ms,
        worker: &WorkerId,
        frame: FromWorker,
    ) -> Result<(), StoreError> {
        if let Some(peering) = self.peers.get_mut(&link) {
            peering.heard = now;
            return peering.peer.take(frame).await;
        }
        let FromWorker::Hello(hello) = frame else { panic!("a worker of ours says hello first") };
        let core = self.core.clone();
        let (peer, queue) = Peer::open(core, worker.clone(), Some(&hello)).await?;
        self.peers.insert(link, Peering { peer, queue, heard: now });
        Ok(())
    }
}
