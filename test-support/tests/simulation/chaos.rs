//! What goes wrong, and how it is made good in the end.

use super::{
    database::FRAGILE,
    network::End,
    world::{Happening, Ms, World},
};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Whatever chance chooses when the time has come.
    Any,
    DatabaseIsBack,
    DiskHasRoom(usize),
    /// Somebody sets a plane's clock right again, by so much.
    ClockIsRight(usize, i64),
    /// An administrator takes a drain back.
    Resumed(usize),
    /// A worker that was told twice to stop waits no longer.
    PatienceEnds(usize, u64),
}

impl World {
    pub(crate) fn plan_faults(&mut self, within: Ms) {
        // Some worlds are nearly quiet, so that the ordinary way is seen as well.
        for _ in 0..self.chance.within(0..=16) {
            let at = self.chance.within(0..=within);
            self.after(at, Happening::Fault(Fault::Any));
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Any => self.misfortune(),
            Fault::DatabaseIsBack => {
                self.note(format_args!("the database is back"));
                self.database.break_writes(&self.runtime, None);
            }
            Fault::DiskHasRoom(machine) => self.disk_is(machine, false),
            Fault::ClockIsRight(plane, by) => self.set_clock(plane, by),
            Fault::Resumed(machine) => self.resume_worker(machine),
            Fault::PatienceEnds(machine, life) => {
                if self.machines[machine].lives == life {
                    self.worker_dies(machine);
                    self.after(1_000, Happening::WorkerStarts(machine));
                }
            }
        }
    }

    fn misfortune(&mut self) {
        let plane = self.chance.below(self.planes.len());
        let machine = self.chance.below(self.machines.len());
        let open = self.network.open_links();
        let link = open.get(self.chance.below(open.len())).copied();
        let long = self.chance.wait(500..=12_000, 12_000..=35_000);
        match self.chance.below(16) {
            0..=2 => {
                if let Some(link) = link {
                    self.note(format_args!("link {link} is cut"));
                    self.cut(link);
                }
            }
            3 | 4 => {
                if let Some(link) = link {
                    let to: &[End] = match self.chance.below(3) {
                        0 => &[End::Plane],
                        1 => &[End::Worker],
                        _ => &[End::Plane, End::Worker],
                    };
                    self.note(format_args!("link {link} stands still for {long} ms to {to:?}"));
                    self.network.stand_still(link, to, self.now + long);
                }
            }
            5 => {
                self.note(format_args!(
                    "machine {machine} and plane {plane} are apart for {long} ms"
                ));
                self.network.part(machine, plane, self.now + long);
                for link in open {
                    let ends = &self.network.links[link];
                    if (ends.machine, ends.plane) == (machine, plane) {
                        let both = [End::Plane, End::Worker];
                        self.network.stand_still(link, &both, self.now + long);
                    }
                }
            }
            6 | 7 => {
                self.worker_dies(machine);
                self.after(long, Happening::WorkerStarts(machine));
            }
            8 => {
                if self.machines.iter().filter(|machine| machine.alive).count() > 1 {
                    self.machine_is_lost(machine);
                }
            }
            9 => {
                self.note(format_args!("worker {machine} stands still for {long} ms"));
                self.machines[machine].paused_until = self.now + long;
            }
            10 => {
                self.plane_dies(plane);
                self.after(long, Happening::PlaneStarts(plane));
            }
            11 => {
                if self.planes[plane].is_up() {
                    self.note(format_args!("plane {plane} will die before an answer"));
                    self.planes[plane].ends_unanswered = true;
                }
            }
            12 => {
                self.plane_stops(plane);
                self.after(long / 4, Happening::PlaneStarts(plane));
            }
            13 => {
                self.note(format_args!("plane {plane} stands still for {long} ms"));
                self.planes[plane].paused_until = self.now + long;
            }
            14 => self.lesser_misfortune(plane, machine, long),
            _ => {
                let which = &FRAGILE[self.chance.below(FRAGILE.len())];
                self.note(format_args!("nothing can be written into {which:?} for {long} ms"));
                self.database.break_writes(&self.runtime, Some(which));
                self.after(long, Happening::Fault(Fault::DatabaseIsBack));
            }
        }
    }

    fn lesser_misfortune(&mut self, plane: usize, machine: usize, long: Ms) {
        match self.chance.below(5) {
            0 => {
                let by = i64::try_from(self.chance.within(1_000..=60_000)).unwrap_or(1_000);
                let by = if self.chance.one_in(2) { by } else { -by };
                self.set_clock(plane, by);
                if self.planes.len() > 1 {
                    // Planes whose clocks differ for good by more than a lease end each other's executions.
                    self.after(long, Happening::Fault(Fault::ClockIsRight(plane, -by)));
                }
            }
            1 => self.worker_drains(machine),
            2 => self.drain_worker(machine, long),
            3 => {
                self.worker_aborts(machine);
                let life = self.machines[machine].lives;
                self.after(8_000, Happening::Fault(Fault::PatienceEnds(machine, life)));
            }
            _ => {
                self.note(format_args!("the disk of machine {machine} is full for {long} ms"));
                self.disk_is(machine, true);
                self.after(long, Happening::Fault(Fault::DiskHasRoom(machine)));
            }
        }
    }

    /// As an administrator does it; should nothing answer, the wish is dropped.
    fn drain_worker(&mut self, machine: usize, long: Ms) {
        let plane = self.chance.below(self.planes.len());
        let (Some(core), id) = (self.planes[plane].core(), self.machines[machine].id.clone())
        else {
            return;
        };
        let drained = self.runtime.block_on(core.store.drain_worker(&id, core.now()));
        self.note(format_args!("worker {machine} is drained over plane {plane}: {drained:?}"));
        self.after(long, Happening::Fault(Fault::Resumed(machine)));
        core.wake.queue();
        drop(core);
        self.plane_goes_on(plane);
    }

    fn resume_worker(&mut self, machine: usize) {
        let (store, id) = (self.database.store.clone(), self.machines[machine].id.clone());
        let resumed = self.runtime.block_on(store.resume_worker(&id));
        self.note(format_args!("worker {machine} may take work again: {resumed:?}"));
        if resumed.is_err() {
            self.after(1_000, Happening::Fault(Fault::Resumed(machine)));
        }
    }

    fn set_clock(&mut self, plane: usize, by: i64) {
        self.note(format_args!("the clock of plane {plane} is set by {by} ms"));
        self.planes[plane].clock.jump(by);
    }

    /// From now on nothing goes wrong any more; what is lost stays lost.
    pub(crate) fn heal(&mut self) {
        self.note(format_args!("from here on nothing goes wrong"));
        self.network.heal(self.now);
        self.network.evil = false;
        self.database.break_writes(&self.runtime, None);
        for plane in 0..self.planes.len() {
            self.planes[plane].paused_until = 0;
            self.planes[plane].ends_unanswered = false;
            self.plane_starts(plane);
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].paused_until = 0;
            self.disk_is(machine, false);
            self.worker_starts(machine);
            self.worker_works(machine);
        }
    }
}
