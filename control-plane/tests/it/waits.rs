//! A wait in the queue has an end: each wait anew, never because nobody could have been served, and never for a run
//! that somebody took.

use std::time::Duration;

use control_plane::{
    core::{Core, Settings},
    reaper,
    runs::{self, NewRun, Run},
    store::Report,
    timeouts::{Ceilings, TimeoutWishes},
};
use protocol::{
    event::{Event, EventSource, Exit},
    failure::FailureReason,
    ids::RunId,
    retry::{FailureClass, RetryPolicy},
    run::RunState,
};
use service::clock::Clock;
use test_support::worker::numbered;

use crate::{
    base::{Db, START, admin, on_both, prompt, settings, tenant},
    step::{claim, claim_up_to, claimed, failed, ingest, kinds, poison, report, state},
};

on_both!(
    a_wait_that_is_too_long_ends,
    each_wait_has_a_bound_of_its_own,
    a_wait_begins_when_it_may_be_claimed_again,
    a_wait_goes_on_when_a_worker_declines,
    nobody_expires_while_nobody_could_be_served,
    of_a_claim_and_an_end_the_first_one_counts,
    a_ceiling_bounds_every_wait,
    a_row_that_cannot_be_read_keeps_no_other_waiting,
);

/// A run that may wait for so long.
async fn patient(core: &Core, secs: u64) -> RunId {
    let timeouts = TimeoutWishes { queue_secs: Some(secs), ..TimeoutWishes::default() };
    let new = NewRun { timeouts, ..prompt("wait for me") };
    runs::submit(core, &tenant('a'), new).await.unwrap().run_id
}

async fn seen(core: &Core, id: &RunId) -> Run {
    runs::get(core, &admin(), id).await.unwrap()
}

/// Lets time pass, and the reaper look.
async fn pass_after(core: &Core, secs: u64) {
    core.clock.advance(Duration::from_secs(secs));
    reaper::pass(core).await.unwrap();
}

async fn a_wait_that_is_too_long_ends(db: Db) {
    let core = db.core().await;
    let (short, long) = (patient(&core, 90).await, patient(&core, 900).await);
    assert_eq!(seen(&core, &short).await.queue_until, Some(START + 90_000));
    pass_after(&core, 90).await;
    assert_eq!(state(&core, &short).await, RunState::Queued);
    pass_after(&core, 1).await;
    let ended = seen(&core, &short).await;
    assert_eq!((ended.state, ended.reason), (RunState::Failed, Some(FailureReason::TaskTimeout)));
    let message = ended.message.unwrap();
    assert!(message.contains("queue") && message.contains("90 s"), "{message}");
    assert_eq!((ended.queue_until, ended.ended_at), (None, Some(core.now())));
    assert_eq!(kinds(&core, &short).await, ["state", "state"]);
    assert_eq!(state(&core, &long).await, RunState::Queued);
    assert_eq!(core.counters.waited_too_long.get(), 1);
    assert!(claim_up_to(&core, 9).await.iter().all(|run| run.run_id == long));
}

async fn each_wait_has_a_bound_of_its_own(db: Db) {
    let core = db.core().await;
    let id = patient(&core, 90).await;
    core.clock.advance(Duration::from_secs(80));
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    report(&core, &run, failed(FailureReason::ImagePull)).await;
    assert_eq!(seen(&core, &id).await.queue_until, Some(START + 170_000));
    pass_after(&core, 90).await;
    assert_eq!(state(&core, &id).await, RunState::Queued);
    pass_after(&core, 1).await;
    assert_eq!(state(&core, &id).await, RunState::Failed);
    let attempts = runs::attempts(&core, &tenant('a'), &id).await.unwrap();
    assert_eq!(attempts[0].reason, Some(FailureReason::ImagePull));
}

async fn a_wait_begins_when_it_may_be_claimed_again(db: Db) {
    let core = db.core().await;
    let timeouts = TimeoutWishes { queue_secs: Some(90), ..TimeoutWishes::default() };
    let retry = RetryPolicy { max_attempts: None, on: Some(vec![FailureClass::Provider]) };
    let new = NewRun { timeouts, retry, ..prompt("wait for me") };
    let id = runs::submit(&core, &tenant('a'), new).await.unwrap().run_id;
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    let reason = Some(FailureReason::RateLimit);
    let exit = Exit { reason, retry_after_ms: Some(600_000), ..Exit::default() };
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &[Event::Exit(exit)])).await;
    report(&core, &run, failed(FailureReason::RateLimit)).await;
    let until = (Some(START + 600_000), Some(START + 690_000));
    let waits = async || {
        let run = seen(&core, &id).await;
        (run.next_attempt_at, run.queue_until)
    };
    assert_eq!(waits().await, until);
    // A plane that starts looks for what lies too far ahead: this does not.
    core.store.rebase(core.now(), core.now() + 60_000).await.unwrap();
    assert_eq!(waits().await, until);
    for _ in 0..6 {
        pass_after(&core, 100).await;
    }
    assert_eq!(claim(&core).await.run_id, id);
}

async fn a_wait_goes_on_when_a_worker_declines(db: Db) {
    let core = db.core().await;
    let id = patient(&core, 90).await;
    core.clock.advance(Duration::from_secs(80));
    let run = claim(&core).await;
    report(&core, &run, Report::Declined { message: "full".to_owned() }).await;
    assert_eq!(seen(&core, &id).await.queue_until, Some(START + 90_000));
    pass_after(&core, 11).await;
    assert_eq!(state(&core, &id).await, RunState::Failed);
}

async fn nobody_expires_while_nobody_could_be_served(db: Db) {
    let core = db.core().await;
    let (first, second) = (patient(&core, 10).await, patient(&core, 10).await);
    // The plane is down for an hour.
    let hour = Clock::by_hand(START + 3_600_000);
    let core = db.core_with(hour, settings()).await;
    reaper::pass(&core).await.unwrap();
    let served = claim_up_to(&core, 1).await.remove(0);
    pass_after(&core, 30).await;
    let other = if served.run_id == first { second } else { first };
    assert_eq!(state(&core, &other).await, RunState::Queued);
    pass_after(&core, 31).await;
    assert_eq!(state(&core, &other).await, RunState::Failed);
    assert_ne!(state(&core, &served.run_id).await, RunState::Failed);
}

async fn of_a_claim_and_an_end_the_first_one_counts(db: Db) {
    const RUNS: usize = 60;
    let core = db.core().await;
    for _ in 0..RUNS {
        patient(&core, 1).await;
    }
    core.clock.advance(Duration::from_secs(100));
    let claims = async {
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.extend(claim_up_to(&core, 1_000).await.into_iter().take(RUNS));
            tokio::task::yield_now().await;
        }
        taken
    };
    let ends = async {
        let mut ended = Vec::new();
        for _ in 0..10 {
            ended.extend(core.store.end_waits(core.now()).await.unwrap());
        }
        ended
    };
    let (taken, ended) = tokio::join!(claims, ends);
    assert_eq!(taken.len() + ended.len(), RUNS);
    for run in &taken {
        assert_eq!(state(&core, &run.run_id).await, RunState::Pending);
    }
    for id in &ended {
        assert_eq!(state(&core, id).await, RunState::Failed);
    }
}

async fn a_ceiling_bounds_every_wait(db: Db) {
    let ceilings = Ceilings { queue_secs: 60, run_secs: 600, ..Ceilings::default() };
    let strict = Settings { ceilings, ..settings() };
    let core = db.core_with(Clock::by_hand(START), strict).await;
    let silent = runs::submit(&core, &tenant('a'), prompt("x")).await.unwrap().run_id;
    let greedy = patient(&core, 6_000).await;
    for id in [&silent, &greedy] {
        assert_eq!(seen(&core, id).await.queue_until, Some(START + 60_000));
        let held = runs::spec(&core, &tenant('a'), id).await.unwrap().timeouts;
        assert_eq!((held.queue_secs, held.run_secs), (Some(60), Some(600)));
    }
}

async fn a_row_that_cannot_be_read_keeps_no_other_waiting(db: Db) {
    let core = db.core().await;
    let (broken, sound) = (patient(&core, 60).await, patient(&core, 90).await);
    poison(&core, &broken).await;
    pass_after(&core, 91).await;
    assert_eq!(state(&core, &sound).await, RunState::Failed);
    assert_eq!(core.counters.waited_too_long.get(), 1);
}
