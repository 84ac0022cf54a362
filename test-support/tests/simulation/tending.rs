//! Looking after one execution, as the worker's own code does with a real container: from its assignment to the
//! acknowledgement of its report, or from a restart of the worker on.

use protocol::{
    event::{Event, Phase},
    failure::FailureReason,
    ids::ExecutionId,
};
use worker::simulation::{Care, Found, Pushed, Stop};

use super::{
    container::{Container, exit_of},
    worker::Home,
    world::{BEGAN_MS, Ms, Sabotage, World},
};

pub(crate) struct Tending {
    pub(crate) care: Care,
    pub(crate) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Assigned; its folder is made then.
    Taken(Ms),
    /// The image is there then.
    Image(Ms),
    /// The container is there then.
    Starting(Ms),
    /// Of an earlier life: the plane has not said what becomes of it.
    Unheard,
    /// The sidecar is connected from then on.
    Watched(Ms),
    Reported,
    /// All of it is gone then.
    Removing(Ms),
}

enum Step {
    /// At once again.
    Go(Stage),
    /// Not before then, unless something comes in.
    At(Ms),
    Gone,
}

const IN_TIME: Ms = Ms::MAX;

impl World {
    /// Does what is due; gives the time of what is due next.
    pub(crate) fn tend_all(&mut self, n: usize) -> Ms {
        let Some(process) = &self.machines[n].process else { return IN_TIME };
        let ids: Vec<_> = process.tended.keys().cloned().collect();
        ids.iter().map(|id| self.tend(n, id)).min().unwrap_or(IN_TIME)
    }

    fn tend(&mut self, n: usize, id: &ExecutionId) -> Ms {
        let Some(process) = &mut self.machines[n].process else { return IN_TIME };
        let Some(mut tending) = process.tended.remove(id) else { return IN_TIME };
        let next = loop {
            match self.step(n, id, &tending) {
                Step::Go(stage) => tending.stage = stage,
                Step::At(at) => break at,
                Step::Gone => return IN_TIME,
            }
        };
        if let Some(process) = &mut self.machines[n].process {
            process.tended.insert(id.clone(), tending);
        }
        next
    }

    fn step(&mut self, n: usize, id: &ExecutionId, tending: &Tending) -> Step {
        let care = &tending.care;
        let deaf = self.sabotage == Some(Sabotage::IgnoresStop);
        let stop = care.stop().filter(|stop| !(deaf && *stop == Stop::Superseded));
        let superseded = stop == Some(Stop::Superseded);
        match tending.stage {
            Stage::Taken(at) if at > self.now => Step::At(at),
            Stage::Taken(_) => {
                let home = Home::new(care.run_id().clone(), self.worker_ms());
                self.machines[n].homes.insert(id.clone(), home);
                care.say(&Event::PhaseStarted { phase: Phase::Image });
                Step::Go(Stage::Image(self.now + self.chance.wait(1..=300, 1_000..=20_000)))
            }
            Stage::Image(_) if stop.is_some() => {
                care.say(&finished(Phase::Image, false));
                self.stopped(id, care, superseded)
            }
            Stage::Image(at) if at > self.now => Step::At(at),
            Stage::Image(_) => {
                let there = !self.chance.one_in(25);
                care.say(&finished(Phase::Image, there));
                if !there {
                    let message = "no such image".to_owned();
                    return self.report(
                        id,
                        care,
                        Found::Failure(FailureReason::ImagePull, message),
                    );
                }
                care.say(&Event::PhaseStarted { phase: Phase::Container });
                Step::Go(Stage::Starting(self.now + self.chance.wait(20..=300, 1_000..=9_000)))
            }
            // A start is not broken off half way.
            Stage::Starting(at) if at > self.now => Step::At(at),
            Stage::Starting(_) => {
                let container = Container::begin(id, care.run_id(), n, self.now, &mut self.chance);
                if self.containers.insert(id.clone(), container).is_some() {
                    self.wrong(format!("{id} was begun twice"));
                }
                self.note(format_args!("the container of {id} starts on machine {n}"));
                care.say(&finished(Phase::Container, stop.is_none()));
                match stop {
                    Some(_) => self.stopped(id, care, superseded),
                    None => Step::Go(Stage::Watched(self.now + self.chance.within(1..=50))),
                }
            }
            Stage::Unheard if superseded => self.remove(id),
            Stage::Unheard if stop == Some(Stop::Cancelled) => {
                self.report(id, care, Found::Stopped)
            }
            // Not heard of the plane, and going already: it runs on for the next life.
            Stage::Unheard if stop.is_some() || !care.is_confirmed() => Step::At(IN_TIME),
            Stage::Unheard if self.containers.contains_key(id) => {
                Step::Go(Stage::Watched(self.now + self.chance.within(1..=2_000)))
            }
            Stage::Unheard => {
                let message = "restarted before the container ran".to_owned();
                self.report(id, care, Found::Failure(FailureReason::WorkerLost, message))
            }
            Stage::Watched(_) if superseded => self.remove(id),
            Stage::Watched(from) if from > self.now => Step::At(from),
            Stage::Watched(_) => self.watch(n, id, care, stop),
            Stage::Reported if superseded || care.is_report_acked() => self.remove(id),
            Stage::Reported => Step::At(IN_TIME),
            Stage::Removing(at) if at > self.now => Step::At(at),
            Stage::Removing(_) => self.removed(n, id, care),
        }
    }

    fn watch(&mut self, n: usize, id: &ExecutionId, care: &Care, stop: Option<Stop>) -> Step {
        let now = self.now;
        let grace = self.chance.within(0..=3_000);
        let Some(container) = self.containers.get_mut(id) else { return Step::At(IN_TIME) };
        if stop.is_some() {
            container.cancel(id, now, grace);
        }
        container.forget(care.acked());
        let mut exit = None;
        loop {
            let line = match container.after(care.received(), now) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(forgotten) => {
                    let received = care.received();
                    self.wrong(format!(
                        "{id} forgot its events up to {forgotten}, and its worker has {received} of them"
                    ));
                    break;
                }
            };
            let said = exit_of(&line);
            if let Some(home) = self.machines[n].homes.get_mut(id)
                && said.is_some()
            {
                home.exit.clone_from(&said);
            }
            let mut line = line;
            if self.sabotage == Some(Sabotage::SkipsAnEvent) && self.chance.one_in(20) {
                "output".clone_into(&mut line.kind);
                line.data = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
            }
            match care.offer(line) {
                Some(Pushed::Taken) => exit = exit.or(said),
                // No room: there is some after the next acknowledgement.
                None => break,
                Some(Pushed::Known | Pushed::Gap) => {
                    self.wrong(format!("{id} handed in what does not follow on"));
                    break;
                }
            }
        }
        let Some(container) = self.containers.get(id) else { return Step::At(IN_TIME) };
        if let Some(exit) = exit {
            return self.report(id, care, Found::Exit(exit));
        }
        if let Some(next) = container.next_at(now) {
            return Step::At(next);
        }
        if container.said(now) > care.received() {
            return Step::At(IN_TIME);
        }
        // It has ended, and all that it left is read: the last word may be one of an earlier life.
        let saved = self.machines[n].homes.get(id).and_then(|home| home.exit.clone());
        let found = match saved {
            Some(exit) => Found::Exit(exit),
            None if self.sabotage == Some(Sabotage::SilenceIsSuccess) => Found::Exit(success()),
            None => Found::Failure(FailureReason::ContainerExit, "without a word".to_owned()),
        };
        self.report(id, care, found)
    }

    /// Stopped before its sidecar ran.
    fn stopped(&mut self, id: &ExecutionId, care: &Care, superseded: bool) -> Step {
        if superseded { self.remove(id) } else { self.report(id, care, Found::Stopped) }
    }

    fn report(&mut self, id: &ExecutionId, care: &Care, found: Found) -> Step {
        self.note(format_args!("{id} is reported: {found:?}"));
        if self.sabotage != Some(Sabotage::NeverReports) {
            if !matches!(found, Found::Exit(_)) {
                self.kill(id);
            }
            care.report(found);
        }
        Step::Go(Stage::Reported)
    }

    fn kill(&mut self, id: &ExecutionId) {
        let now = self.now;
        if let Some(container) = self.containers.get_mut(id) {
            container.kill(now);
        }
    }

    fn remove(&mut self, id: &ExecutionId) -> Step {
        self.note(format_args!("{id} is removed"));
        self.kill(id);
        Step::Go(Stage::Removing(self.now + self.chance.within(5..=200)))
    }

    fn removed(&mut self, n: usize, id: &ExecutionId, care: &Care) -> Step {
        if let Some(container) = self.containers.get_mut(id) {
            container.removed = true;
        }
        self.machines[n].homes.remove(id);
        if let Some(process) = &self.machines[n].process {
            process.life.forget(care);
        }
        Step::Gone
    }

    fn worker_ms(&self) -> i64 {
        BEGAN_MS + i64::try_from(self.now).unwrap_or_default()
    }
}

fn finished(phase: Phase, ok: bool) -> Event {
    Event::PhaseFinished { phase, duration_ms: 1, ok }
}

fn success() -> protocol::event::Exit {
    protocol::event::Exit {
        success: true,
        exit_code: None,
        reason: None,
        message: String::new(),
        peak_memory_bytes: None,
        oom_killed: false,
        retry_after_ms: None,
    }
}
