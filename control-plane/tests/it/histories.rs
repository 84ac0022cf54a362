//! Histories of a run in the store, by chance: claims, reports of any execution there ever was, events, wishes to
//! stop, time that passes. Whatever comes in whatever order, the first word counts, only who holds the run has one,
//! and every run can be brought to an end.

use std::time::Duration;

use control_plane::{
    core::Core,
    reaper, runs,
    store::{Assignment, Ingested, Recorded, Report, Run},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{TestCaseResult, TestRunner},
};
use protocol::{event::EventSource, failure::FailureReason, ids::RunId, run::RunState};
use test_support::worker::numbered;

use crate::{
    base::{Db, admin, on_both, submit, tenant},
    step::{INSTANCE, claim_up_to, claimed, ingest, kinds, output, report, succeeded},
};

on_both!(the_first_word_of_whoever_holds_the_run_counts);

#[derive(Debug, Clone)]
enum Act {
    Claim,
    /// Of the newest execution most of the time, else of any.
    Report(Option<Index>, Word),
    Events(Option<Index>, EventSource, u64),
    Renew(Option<Index>),
    Cancel,
    /// Seconds; then the reaper looks.
    Wait(u64),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Claimed,
    Declined,
    Succeeded,
    Failed(FailureReason),
    Stopped,
    Missing,
}

fn act() -> impl Strategy<Value = Act> {
    let which = || prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let word = prop_oneof![
        3 => select(vec![Word::Claimed, Word::Claimed, Word::Declined, Word::Succeeded, Word::Stopped, Word::Missing]),
        1 => select(FailureReason::ALL).prop_map(Word::Failed),
    ];
    let source = select(vec![EventSource::Worker, EventSource::Sidecar]);
    prop_oneof![
        5 => Just(Act::Claim),
        6 => (which(), word).prop_map(|(which, word)| Act::Report(which, word)),
        4 => (which(), source, 1..4_u64).prop_map(|(which, source, first)| Act::Events(which, source, first)),
        2 => which().prop_map(Act::Renew),
        1 => Just(Act::Cancel),
        2 => (1..40_u64).prop_map(Act::Wait),
    ]
}

/// What is to be true of the present wait or execution.
#[derive(Default)]
struct Known {
    executions: Vec<Assignment>,
    /// The user was told that it will stop.
    stopping: bool,
}

impl Known {
    fn pick(&self, which: Option<Index>) -> Option<&Assignment> {
        match which {
            Some(index) if !self.executions.is_empty() => Some(index.get(&self.executions)),
            _ => self.executions.last(),
        }
    }
}

async fn seen(core: &Core, id: &RunId) -> Run {
    runs::get(core, &admin(), id).await.unwrap()
}

/// Does one thing; tells whether the store says that it changed the run by the word of somebody.
async fn perform(
    core: &Core,
    id: &RunId,
    known: &mut Known,
    act: &Act,
) -> Result<Option<Assignment>, TestCaseError> {
    match act {
        Act::Claim => {
            if let Some(assignment) = claim_up_to(core, 1).await.pop() {
                prop_assert_eq!(&assignment.run_id, id);
                known.executions.push(assignment);
            }
        }
        Act::Report(which, word) => {
            let Some(of) = known.pick(*which).cloned() else { return Ok(None) };
            let told = match word {
                Word::Claimed => claimed(core),
                Word::Declined => Report::Declined { message: "no".to_owned() },
                Word::Succeeded => succeeded(),
                Word::Failed(reason) => crate::step::failed(*reason),
                Word::Stopped => {
                    let message = "stopped".to_owned();
                    Report::Stopped { message, exit_code: None, peak_memory_bytes: None }
                }
                Word::Missing => Report::Missing,
            };
            let recorded = report(core, &of, told).await;
            if let Recorded::Applied { run_id, .. } = recorded {
                prop_assert_eq!(&run_id, id);
                return Ok(Some(of));
            }
        }
        Act::Events(which, source, first) => {
            let Some(of) = known.pick(*which).cloned() else { return Ok(None) };
            let events = numbered(*first, &[output("a"), output("b")]);
            if let Ingested::Stored { stored: 1.., .. } = ingest(core, &of, *source, &events).await
            {
                return Ok(Some(of));
            }
        }
        Act::Renew(which) => {
            let Some(of) = known.pick(*which).cloned() else { return Ok(None) };
            let ids = [of.execution_id.clone()];
            let renewed = core.store.renew(INSTANCE, &ids, core.now() + 12_000).await.unwrap();
            if !renewed.is_empty() {
                return Ok(Some(of));
            }
        }
        Act::Cancel => known.stopping |= runs::cancel(core, &tenant('a'), id).await.is_ok(),
        Act::Wait(secs) => {
            core.clock.advance(Duration::from_secs(*secs));
            reaper::pass(core).await.unwrap();
        }
    }
    Ok(None)
}

fn is_held(state: RunState) -> bool {
    matches!(state, RunState::Pending | RunState::Claimed | RunState::Inprogress)
}

async fn history(core: &Core, acts: &[Act]) -> TestCaseResult {
    let id = submit(core, &tenant('a'), "x").await;
    let mut known = Known::default();
    let mut before = seen(core, &id).await;
    for act in acts {
        let spoke = perform(core, &id, &mut known, act).await?;
        let after = seen(core, &id).await;
        if let Some(of) = spoke {
            let held = before.execution_id.as_ref();
            prop_assert_eq!(
                Some(&of.execution_id),
                held,
                "{:?} of one that is over took effect",
                act
            );
        }
        if before.state.is_terminal() {
            prop_assert_eq!(
                (after.state, after.reason, &after.message),
                (before.state, before.reason, &before.message)
            );
            prop_assert_eq!(after.ended_at, before.ended_at);
        } else if after.state == RunState::Succeeded {
            prop_assert!(matches!(act, Act::Report(_, Word::Succeeded)) && !before.cancelling);
        } else if after.state == RunState::Cancelled {
            prop_assert!(known.stopping, "nobody asked for it");
        }
        prop_assert!(after.attempt <= core.settings.max_attempts);
        prop_assert!(!after.cancelling || is_held(after.state));
        if before.cancelling && is_held(after.state) {
            prop_assert!(
                after.cancelling && after.execution_id == before.execution_id,
                "the wish was lost"
            );
        }
        if after.state == RunState::Queued {
            prop_assert!(!before.cancelling, "a run that was to stop is tried again");
            known.stopping = false;
        }
        before = after;
    }
    // Nobody speaks any more, and its user has had enough.
    for _ in 0..4 {
        if seen(core, &id).await.state == RunState::Queued {
            runs::cancel(core, &tenant('a'), &id).await.unwrap();
        }
        core.clock.advance(Duration::from_secs(31));
        reaper::pass(core).await.unwrap();
    }
    prop_assert!(seen(core, &id).await.state.is_terminal());
    let ends = kinds(core, &id).await;
    prop_assert_eq!(
        ends.last().map(String::as_str),
        Some("state"),
        "something was told after the end"
    );
    Ok(())
}

async fn the_first_word_of_whoever_holds_the_run_counts(db: Db) {
    let core = db.core().await;
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let config = ProptestConfig { cases: config.cases / 8, max_shrink_iters: 200, ..config };
    let mut runner = TestRunner::new(config);
    let handle = tokio::runtime::Handle::current();
    let tried = tokio::task::block_in_place(|| {
        runner.run(&vec(act(), 1..40), |acts| handle.block_on(history(&core, &acts)))
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
}
