//! Who gets which free slot: tenants take turns, and within a tenant the more urgent and then the older run goes
//! first. Pure: it is told what waits and what is free, and does neither IO nor look at a clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, binary_heap::PeekMut},
};

use crate::placement::Placement;

/// A run that is ready to be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub id: String,
    /// Higher ones first, among their owner's.
    pub priority: i64,
    /// When it was asked for.
    pub since: i64,
}

/// The ready runs of one owner that ask for the same kind of worker, the first ones of them, in their order.
#[derive(Debug, Clone)]
pub struct Lane {
    pub owner: String,
    pub placement: Placement,
    pub runs: Vec<Waiting>,
    /// There may be more than `runs`.
    pub more: bool,
}

/// A worker process that may be handed something.
#[derive(Debug, Clone)]
pub struct Slots {
    pub worker_id: String,
    pub tags: Vec<String>,
    /// Executions it may be given now.
    pub free: u32,
}

/// What a tenant has under way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    pub active: u32,
    /// Runs under way at once; `None` without a bound.
    pub limit: Option<u32>,
}

/// Which run goes to which worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indexes into the lanes, their runs and the workers, in the order of the turns.
    pub handovers: Vec<Handover>,
    /// The next turn was of a lane of which no more runs were known: hand over, read again, plan again.
    pub unfinished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    pub lane: usize,
    pub run: usize,
    pub worker: usize,
}

/// Within a tenant: priority, then age, then id, so that the order is total.
type Urgency<'a> = (Reverse<i64>, i64, &'a str);

/// Among tenants: who has least under way, then whose next run has waited longest.
type Turn<'a> = (u64, i64, &'a str);

struct Tenant<'a> {
    owner: &'a str,
    under_way: u64,
    limit: u64,
    lanes: Vec<Place>,
}

/// How far a lane has come.
struct Place {
    lane: usize,
    run: usize,
    /// No worker that fits has a slot left.
    stuck: bool,
}

enum Placed {
    At(Handover),
    /// No worker that fits has a slot left.
    Nowhere,
    /// The run that comes next is none of those known.
    Unknown,
}

/// Plans hand-overs until no slot is left that a waiting run fits, no more runs are known, or there are `most`.
pub fn plan(
    lanes: &[Lane],
    loads: &BTreeMap<String, Load>,
    workers: &[Slots],
    most: usize,
) -> Plan {
    let mut slots = FreeSlots::new(workers);
    let mut tenants = tenants(lanes, loads);
    let turns = tenants.iter().enumerate();
    let mut turns: BinaryHeap<Reverse<(Turn<'_>, usize)>> =
        turns.filter_map(|(index, tenant)| Some(Reverse((tenant.turn(lanes)?, index)))).collect();
    let mut plan = Plan::default();
    while let Some(Reverse((_, index))) = turns.pop() {
        if slots.left == 0 {
            break;
        }
        if plan.handovers.len() == most {
            plan.unfinished = true;
            break;
        }
        let tenant = &mut tenants[index];
        if tenant.under_way >= tenant.limit {
            continue;
        }
        if tenant.next(lanes).is_some_and(|place| place.unknown(lanes)) {
            plan.unfinished = true;
            break;
        }
        match tenant.place(lanes, workers, &mut slots) {
            Placed::At(handover) => {
                plan.handovers.push(handover);
                if let Some(turn) = tenant.turn(lanes) {
                    turns.push(Reverse((turn, index)));
                }
            }
            Placed::Nowhere => {}
            Placed::Unknown => {
                plan.unfinished = true;
                break;
            }
        }
    }
    plan
}

fn tenants<'a>(lanes: &'a [Lane], loads: &BTreeMap<String, Load>) -> Vec<Tenant<'a>> {
    let mut tenants: BTreeMap<&str, Tenant<'_>> = BTreeMap::new();
    for (index, lane) in lanes.iter().enumerate().filter(|(_, lane)| !lane.runs.is_empty()) {
        let tenant = tenants.entry(&lane.owner).or_insert_with(|| {
            let load = loads.get(&lane.owner).copied().unwrap_or_default();
            Tenant {
                owner: &lane.owner,
                under_way: load.active.into(),
                limit: load.limit.map_or(u64::MAX, u64::from),
                lanes: Vec::new(),
            }
        });
        tenant.lanes.push(Place { lane: index, run: 0, stuck: false });
    }
    tenants.into_values().collect()
}

impl<'a> Tenant<'a> {
    /// Among its lanes the one whose next run comes first.
    fn next(&self, lanes: &[Lane]) -> Option<&Place> {
        self.lanes.iter().min_by_key(|place| place.urgency(lanes))
    }

    fn turn(&self, lanes: &[Lane]) -> Option<Turn<'a>> {
        let next = self.next(lanes)?;
        // Of a run that is not known yet: soon, so that planning stops rather than pass it over.
        let since = if next.unknown(lanes) { i64::MIN } else { next.urgency(lanes).1 };
        Some((self.under_way, since, self.owner))
    }

    /// Places its next run that fits somewhere.
    fn place<'b>(
        &mut self,
        lanes: &'b [Lane],
        workers: &[Slots],
        slots: &mut FreeSlots<'b>,
    ) -> Placed {
        loop {
            let open = self.lanes.iter_mut().enumerate().filter(|(_, place)| !place.stuck);
            let next = open.min_by_key(|(_, place)| place.urgency(lanes));
            let Some((index, place)) = next else { return Placed::Nowhere };
            let Place { lane, run, .. } = *place;
            if place.unknown(lanes) {
                return Placed::Unknown;
            }
            let Some(worker) = slots.take(&lanes[lane].placement, workers) else {
                place.stuck = true;
                continue;
            };
            place.run += 1;
            if place.run == lanes[lane].runs.len() && !lanes[lane].more {
                self.lanes.swap_remove(index);
            }
            self.under_way += 1;
            return Placed::At(Handover { lane, run, worker });
        }
    }
}

impl Place {
    /// Whether the lane goes on and nobody has said how.
    fn unknown(&self, lanes: &[Lane]) -> bool {
        self.run == lanes[self.lane].runs.len()
    }

    /// Of an unknown run only this much is known, that it comes after the last known one: it counts as urgent as
    /// that.
    fn urgency<'a>(&self, lanes: &'a [Lane]) -> Urgency<'a> {
        let runs = &lanes[self.lane].runs;
        let known = &runs[self.run.min(runs.len() - 1)];
        (Reverse(known.priority), known.since, &known.id)
    }
}

/// What is free, and for each kind of wish the workers that fit, the one with the most free slots first.
struct FreeSlots<'a> {
    free: Vec<u32>,
    /// All of them together.
    left: u64,
    /// A worker's number of slots only shrinks, so an entry that is too high is put back where it belongs when it
    /// comes up, and no entry is ever too low.
    fitting: BTreeMap<&'a Placement, BinaryHeap<(u32, Reverse<usize>)>>,
}

impl<'a> FreeSlots<'a> {
    fn new(workers: &[Slots]) -> Self {
        let free: Vec<_> = workers.iter().map(|one| one.free).collect();
        let left = free.iter().copied().map(u64::from).sum();
        Self { free, left, fitting: BTreeMap::new() }
    }

    /// Takes a slot of the fitting worker that has most of them free; `None` when all are full.
    fn take(&mut self, placement: &'a Placement, workers: &[Slots]) -> Option<usize> {
        let free = &mut self.free;
        let fitting = self.fitting.entry(placement).or_insert_with(|| {
            let fits = |one: &Slots| placement.fits(&one.worker_id, &one.tags);
            let all = workers.iter().enumerate().filter(|(_, one)| fits(one));
            all.map(|(index, _)| (free[index], Reverse(index))).collect()
        });
        loop {
            let mut top = fitting.peek_mut()?;
            let index = top.1.0;
            if free[index] == 0 {
                PeekMut::pop(top);
            } else if top.0 > free[index] {
                top.0 = free[index];
            } else {
                free[index] -= 1;
                self.left -= 1;
                return Some(index);
            }
        }
    }
}

#[cfg(test)]
mod tests;
