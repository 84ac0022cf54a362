//! The network between workers and planes: ordered streams of bytes that are delayed, stand still, break off in
//! the middle, and go on arriving after one end has long given up. An evil one also reorders and repeats.

use super::{chance::Chance, world::Ms};

/// Which end of a connection, or the direction towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Plane,
    Worker,
}

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// One frame, as it stands on the wire.
    Frame(String),
    /// The answer to a ping.
    Pong,
    Close,
}

/// An item on its way.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) link: usize,
    pub(crate) to: End,
    pub(crate) n: u64,
    pub(crate) item: Item,
}

/// One connection of one worker process to one plane process.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) machine: usize,
    pub(crate) plane: usize,
    /// Whether that end believes in it.
    pub(crate) worker_open: bool,
    pub(crate) plane_open: bool,
    to_plane: Way,
    to_worker: Way,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    sent: u64,
    /// The next to arrive.
    next: u64,
    /// When the last one sent arrives.
    last_at: Ms,
    /// From this one on nothing arrives any more.
    lost_from: Option<u64>,
    /// Until then nothing arrives, and then all of it.
    still_until: Ms,
}

/// What becomes of a parcel when its time has come.
pub(crate) enum Arrival {
    Now,
    Later(Ms),
    Never,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) links: Vec<Link>,
    /// Reorders and repeats within a connection, as no TCP does.
    pub(crate) evil: bool,
    /// Pairs of machine and plane that cannot reach each other, and until when.
    apart: Vec<(usize, usize, Ms)>,
}

impl Link {
    fn way(&mut self, to: End) -> &mut Way {
        match to {
            End::Plane => &mut self.to_plane,
            End::Worker => &mut self.to_worker,
        }
    }

    pub(crate) fn open(&mut self, end: End) -> &mut bool {
        match end {
            End::Plane => &mut self.plane_open,
            End::Worker => &mut self.worker_open,
        }
    }
}

impl Network {
    pub(crate) fn connect(&mut self, machine: usize, plane: usize) -> usize {
        self.links.push(Link {
            machine,
            plane,
            worker_open: true,
            plane_open: true,
            to_plane: Way::default(),
            to_worker: Way::default(),
        });
        self.links.len() - 1
    }

    /// Puts an item on its way; gives the parcels and when they arrive.
    pub(crate) fn send(
        &mut self,
        now: Ms,
        chance: &mut Chance,
        link: usize,
        to: End,
        item: Item,
    ) -> Vec<(Ms, Parcel)> {
        let evil = self.evil && !matches!(item, Item::Close);
        let way = self.links[link].way(to);
        let n = way.sent;
        way.sent += 1;
        let delay = chance.wait(1..=15, 50..=400);
        let mut at = (now + delay).max(way.still_until);
        if !evil {
            at = at.max(way.last_at);
        }
        way.last_at = way.last_at.max(at);
        let parcel = Parcel { link, to, n, item };
        if evil && chance.one_in(3) {
            at += chance.within(1..=1_500);
            way.last_at = way.last_at.max(at);
        }
        if evil && chance.one_in(8) {
            let again = at + chance.within(1..=3_000);
            return vec![(at, parcel.clone()), (again, parcel)];
        }
        vec![(at, parcel)]
    }

    /// Whether nothing is known that keeps it from arriving now.
    pub(crate) fn may_arrive(&self, now: Ms, parcel: &Parcel) -> bool {
        let link = &self.links[parcel.link];
        let way = match parcel.to {
            End::Plane => &link.to_plane,
            End::Worker => &link.to_worker,
        };
        way.lost_from.is_none_or(|from| parcel.n < from)
            && way.still_until <= now
            && (self.evil || parcel.n <= way.next)
    }

    pub(crate) fn arrive(&mut self, now: Ms, parcel: &Parcel) -> Arrival {
        let evil = self.evil;
        let way = self.links[parcel.link].way(parcel.to);
        if way.lost_from.is_some_and(|from| parcel.n >= from) {
            return Arrival::Never;
        }
        if now < way.still_until {
            return Arrival::Later(way.still_until);
        }
        if !evil && parcel.n > way.next {
            return Arrival::Later(now + 1);
        }
        way.next = way.next.max(parcel.n + 1);
        Arrival::Now
    }

    /// Breaks a connection: of what is under way in either direction, a random rest is lost.
    pub(crate) fn cut(&mut self, chance: &mut Chance, link: usize) {
        for to in [End::Plane, End::Worker] {
            let way = self.links[link].way(to);
            let from = way.next + chance.next() % (way.sent - way.next + 1);
            way.lost_from = Some(way.lost_from.map_or(from, |earlier| earlier.min(from)));
        }
    }

    /// Nothing arrives in one or both directions until then; nobody is told.
    pub(crate) fn stand_still(&mut self, link: usize, to: &[End], until: Ms) {
        for to in to {
            let way = self.links[link].way(*to);
            way.still_until = way.still_until.max(until);
        }
    }

    pub(crate) fn part(&mut self, machine: usize, plane: usize, until: Ms) {
        self.apart.push((machine, plane, until));
    }

    pub(crate) fn reaches(&self, now: Ms, machine: usize, plane: usize) -> bool {
        !self.apart.iter().any(|(m, p, until)| (*m, *p) == (machine, plane) && now < *until)
    }

    /// Everything flows again; what was lost stays lost.
    pub(crate) fn heal(&mut self, now: Ms) {
        self.apart.clear();
        for link in &mut self.links {
            for to in [End::Plane, End::Worker] {
                let way = link.way(to);
                way.still_until = way.still_until.min(now);
            }
        }
    }

    /// Connections at least one end believes in.
    pub(crate) fn open_links(&self) -> Vec<usize> {
        let open = |(n, link): (usize, &Link)| (link.plane_open || link.worker_open).then_some(n);
        self.links.iter().enumerate().filter_map(open).collect()
    }
}
