//! What must hold of a run whatever happened to it.

use protocol::{
    api::{events::EventView, runs::RunItem},
    event::Event,
    ids::ExecutionId,
    run::RunState,
};

use super::transcript::{Script, begins, difference, printed};

/// A run that somebody asked for, and what it is to print.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) run: String,
    pub(super) script: Script,
    /// A cancel was accepted.
    pub(super) cancelled: bool,
    /// Somebody wished for a cancel, accepted or not.
    pub(super) wished: bool,
    /// What a follower saw, if there was one.
    pub(super) followed: Option<Vec<(u64, String)>>,
}

impl Entry {
    pub(super) fn new(run: String, script: Script) -> Self {
        Self { run, script, cancelled: false, wished: false, followed: None }
    }

    /// Everything that is wrong with it; nothing when all is well.
    pub(super) fn complaints(&self, item: &RunItem, events: &[EventView]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("{}: {what}", self.run));
            }
        };
        let states = states(events);
        let ends: Vec<_> = states.iter().filter(|(_, state)| state.is_terminal()).collect();
        must(ends.len() == 1, format!("not exactly one terminal state: {ends:?}"));
        let last = states.last().map(|(seq, state)| (*seq, *state));
        must(
            last == Some((events.len() as u64, item.state)) && item.state.is_terminal(),
            format!(
                "the last of {} events is not its end as {}: {last:?}",
                events.len(),
                item.state
            ),
        );
        let expected = match item.state {
            RunState::Succeeded => !self.cancelled,
            RunState::Cancelled => self.wished,
            _ => false,
        };
        must(
            expected,
            format!(
                "it ended {} (cancelled: {}), attempts {:?}",
                item.state, self.cancelled, item.attempts
            ),
        );
        let executions = executions(events);
        must(executions.is_some(), "the events of two executions are mixed".to_owned());
        let executions = executions.unwrap_or_default();
        let attempts = usize::try_from(item.attempt).unwrap();
        must(
            executions.len() <= attempts,
            format!("{attempts} attempts, and events of executions {executions:?}"),
        );
        let whole = self.script.bytes();
        for execution in &executions {
            let printed = printed(events, execution);
            let succeeded =
                item.state == RunState::Succeeded && item.execution_id.as_ref() == Some(execution);
            let right = if succeeded { printed == whole } else { begins(&whole, &printed) };
            must(right, format!("transcript of {execution}: {}", difference(&whole, &printed)));
        }
        if item.state == RunState::Succeeded {
            let present = item.execution_id.as_ref().is_some_and(|id| executions.contains(id));
            must(present, "it succeeded without a transcript".to_owned());
        }
        if let Some(followed) = &self.followed {
            let told: Vec<(u64, String)> =
                events.iter().map(|event| (event.seq, event.kind.clone())).collect();
            must(
                *followed == told,
                format!("its follower saw {} of {}", followed.len(), told.len()),
            );
        }
        wrong
    }
}

/// Every state the run was told to be in, with the event's number.
fn states(events: &[EventView]) -> Vec<(u64, RunState)> {
    let state = |event: &EventView| match event.event() {
        Some(Event::State { state, .. }) => Some((event.seq, state)),
        _ => None,
    };
    events.iter().filter(|event| event.kind == "state").filter_map(state).collect()
}

/// The executions in the order of their first event; `None` when one speaks again after the next has begun.
fn executions(events: &[EventView]) -> Option<Vec<ExecutionId>> {
    let mut all: Vec<ExecutionId> = Vec::new();
    let spoken = events.iter().filter(|event| event.kind != "state");
    for id in spoken.filter_map(|event| event.execution_id.as_ref()) {
        if all.last() != Some(id) {
            if all.contains(id) {
                return None;
            }
            all.push(id.clone());
        }
    }
    Some(all)
}
