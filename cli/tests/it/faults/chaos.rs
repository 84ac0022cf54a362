//! Breaks a fleet at random: a seeded choice of what, and when; what dies comes back after a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use test_support::{process::kill_stranger, proxy::Proxy};

use super::{
    dice::Dice,
    fleet::{Fleet, containers_of, try_docker},
    say,
};

/// Between two blows, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..350;

/// How long something stays away, in milliseconds: most times it is back at once, sometimes after its lease.
const SHORT_MS: std::ops::Range<u64> = 1..800;
const LONG_LEASES: u64 = 2;

/// What can be done to a fleet. What kills a container kills an attempt, so these are not the most frequent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// SIGKILL for PID 1 of a container.
    Sidecar,
    /// `docker kill`.
    Container,
    /// SIGKILL for a worker; its containers go on without it.
    Worker,
    /// SIGKILL for a plane.
    Plane,
    /// The link of a worker is cut between two frames or in one.
    Cut,
    CutSoon,
    /// Nothing passes on the link of a worker, although it is up.
    Stall,
    /// What tenants have open is cut, in the middle of answers and streams.
    Front,
}

/// Each as often as it stands here.
const BLOWS: [Blow; 16] = [
    Blow::Sidecar,
    Blow::Sidecar,
    Blow::Container,
    Blow::Container,
    Blow::Worker,
    Blow::Worker,
    Blow::Worker,
    Blow::Plane,
    Blow::Plane,
    Blow::Cut,
    Blow::CutSoon,
    Blow::CutSoon,
    Blow::CutSoon,
    Blow::Stall,
    Blow::Front,
    Blow::Front,
];

/// Who is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Worker(usize),
    Plane(usize),
    Link(usize),
}

pub(super) struct Chaos {
    dice: Dice,
    lease: u64,
    /// Blows it still has.
    left: u32,
    away: Vec<(Instant, Away)>,
    struck: BTreeMap<Blow, u32>,
}

impl Chaos {
    /// The choices follow from the seed; what they meet does not. After `blows` of them there is peace, so that a slow
    /// machine gets there too.
    pub(super) fn seeded(seed: u64, lease_ms: u64, blows: u32) -> Self {
        say(&format!("chaos with seed {seed} (OZMA_SEED={seed} makes the same choices again)"));
        let (away, struck) = (Vec::new(), BTreeMap::new());
        Self { dice: Dice::seeded(seed), lease: lease_ms, left: blows, away, struck }
    }

    /// Strikes again and again until `over` or until it has no blows left, brings back whoever is away, and waits for
    /// `over`.
    pub(super) async fn rage_until<T>(
        &mut self,
        fleet: &mut Fleet,
        over: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(over);
        while self.left > 0 {
            // A random moment, not a wait for something.
            let pause = tokio::time::sleep(self.dice.millis(PAUSE_MS));
            tokio::select! {
                over = &mut over => {
                    self.bring_back(fleet, |_| true).await;
                    return over;
                }
                () = pause => {}
            }
            let now = Instant::now();
            self.bring_back(fleet, |until| until <= now).await;
            let blow = *self.dice.pick(&BLOWS).expect("there are blows");
            if self.strike(fleet, blow).await {
                *self.struck.entry(blow).or_default() += 1;
                self.left -= 1;
            }
        }
        self.bring_back(fleet, |_| true).await;
        over.await
    }

    /// Chance for whatever else the test does.
    pub(super) fn dice(&mut self) -> Dice {
        self.dice.split()
    }

    pub(super) fn blows(&self) -> u32 {
        self.struck.values().sum()
    }

    /// How often what was done.
    pub(super) fn report(&self) -> String {
        format!("{:?}", self.struck)
    }

    /// Whether there was anything to strike.
    async fn strike(&mut self, fleet: &mut Fleet, blow: Blow) -> bool {
        let worker = self.dice.below(fleet.workers());
        let plane = self.dice.below(fleet.planes());
        let long = self.dice.below(5) == 0;
        let bytes = u32::try_from(self.dice.below(60_000)).unwrap();
        let away = if long {
            Duration::from_millis(LONG_LEASES * self.lease)
        } else {
            self.dice.millis(SHORT_MS)
        };
        let until = Instant::now() + away;
        match blow {
            Blow::Sidecar => return self.kill(fleet, kill_sidecar).await,
            Blow::Container => return self.kill(fleet, kill_container).await,
            Blow::Worker if fleet.worker_is_up(worker) => {
                fleet.kill_worker(worker);
                self.away.push((until, Away::Worker(worker)));
            }
            Blow::Plane if fleet.plane_is_up(plane) => {
                fleet.kill_plane(plane);
                self.away.push((until, Away::Plane(plane)));
            }
            Blow::Cut => fleet.link(worker).cut(),
            Blow::CutSoon => fleet.link(worker).cut_after(bytes),
            Blow::Stall if !self.is_away(Away::Link(worker)) => {
                fleet.link(worker).stall();
                self.away.push((until, Away::Link(worker)));
            }
            Blow::Front => fleet.front().cut(),
            Blow::Worker | Blow::Plane | Blow::Stall => return false,
        }
        true
    }

    async fn kill(&mut self, fleet: &Fleet, how: fn(&str) -> bool) -> bool {
        let workers = fleet.worker_ids();
        let mut dice = self.dice.split();
        // The engine's command blocks.
        let struck = tokio::task::spawn_blocking(move || {
            let containers = containers_of(&workers);
            dice.pick(&containers).is_some_and(|container| how(container))
        });
        struck.await.unwrap()
    }

    fn is_away(&self, who: Away) -> bool {
        self.away.iter().any(|(_, away)| *away == who)
    }

    async fn bring_back(&mut self, fleet: &mut Fleet, due: impl Fn(Instant) -> bool) {
        let (back, still) =
            std::mem::take(&mut self.away).into_iter().partition(|(until, _)| due(*until));
        self.away = still;
        let back: Vec<(Instant, Away)> = back;
        for (_, who) in back {
            match who {
                Away::Worker(nth) => fleet.start_worker(nth),
                Away::Plane(nth) => fleet.start_plane(nth).await,
                Away::Link(nth) => Proxy::open(fleet.link(nth)),
            }
        }
    }
}

fn kill_sidecar(container: &str) -> bool {
    let state =
        || try_docker(&["inspect", "--format", "{{.State.Running}} {{.State.Pid}}", container]);
    let Some(before) = state() else { return false };
    let pid = before.strip_prefix("true ").and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| kill_stranger(pid, || state().is_some_and(|now| now == before)))
}

fn kill_container(container: &str) -> bool {
    try_docker(&["kill", container]).is_some()
}
