//! Clocks that are set: ahead, nothing expires that was alive; back, nothing that is dead lives on for ever.

use std::time::Duration;

use control_plane::{
    core::Settings,
    reaper::{self, Watch},
    runs,
};
use protocol::{failure::FailureReason, ids::RunId, run::RunState};
use service::clock::Clock;

use crate::{
    base::{Db, START, on_both, settings, submit, tenant},
    step::{INSTANCE, LEASE, claim, claimed, failed, report, state, with_run},
};

on_both!(
    a_jump_ahead_expires_nothing_that_lives,
    a_jump_back_keeps_nothing_that_is_dead,
    a_jump_back_brings_back_waits_and_retries,
    a_step_of_a_second_is_no_jump,
);

const HOUR_MS: i64 = 3_600_000;

async fn a_jump_ahead_expires_nothing_that_lives(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    let mut watch = Watch::new(&core);
    // Past the first lease of the plane's life, its worker speaks.
    for _ in 0..3 {
        core.clock.advance(Duration::from_secs(5));
        let ids = [run.execution_id.clone()];
        core.store.renew(INSTANCE, &ids, core.now() + LEASE).await.unwrap();
        reaper::round(&core, &mut watch).await.unwrap();
    }
    core.clock.jump(HOUR_MS);
    reaper::round(&core, &mut watch).await.unwrap();
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);
    assert_eq!(core.counters.clock_jumps.get(), 1);

    // Its next heartbeat comes by the new time, and all is well.
    core.clock.advance(Duration::from_secs(4));
    let ids = [run.execution_id.clone()];
    core.store.renew(INSTANCE, &ids, core.now() + LEASE).await.unwrap();
    core.clock.advance(Duration::from_secs(5));
    reaper::round(&core, &mut watch).await.unwrap();
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);

    // Should none come, it is lost one lease after the jump, and not before.
    for _ in 0..6 {
        core.clock.advance(Duration::from_secs(5));
        reaper::round(&core, &mut watch).await.unwrap();
    }
    assert_eq!(state(&core, &run.run_id).await, RunState::Queued);
}

async fn a_jump_back_keeps_nothing_that_is_dead(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    let mut watch = Watch::new(&core);
    core.clock.jump(-HOUR_MS);
    let mut waited = 0;
    while state(&core, &run.run_id).await == RunState::Inprogress {
        reaper::round(&core, &mut watch).await.unwrap();
        core.clock.advance(Duration::from_secs(5));
        waited += 5;
        // The longest lease there is, a stock worker's, and the plane's own.
        assert!(waited <= 90 + 12 + 10, "its lease still lies an hour ahead");
    }
    let attempts = runs::attempts(&core, &tenant('a'), &run.run_id).await.unwrap();
    assert_eq!(attempts[0].reason, Some(FailureReason::WorkerLost));
}

async fn a_jump_back_brings_back_waits_and_retries(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let id: RunId = submit(&core, &tenant('a'), "x").await;
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    report(&core, &run, failed(FailureReason::ImagePull)).await;
    let mut watch = Watch::new(&core);
    reaper::round(&core, &mut watch).await.unwrap();
    core.clock.jump(-HOUR_MS);
    reaper::round(&core, &mut watch).await.unwrap();
    let seen = runs::get(&core, &tenant('a'), &id).await.unwrap();
    assert!(seen.next_attempt_at.unwrap() <= core.now() + 60_000, "{seen:?}");
    assert!(seen.queue_until.unwrap() <= core.now() + 604_800_000 + 60_000, "{seen:?}");
}

async fn a_step_of_a_second_is_no_jump(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    let mut watch = Watch::new(&core);
    for step in [1_000, -1_000, 2_500] {
        core.clock.jump(step);
        reaper::round(&core, &mut watch).await.unwrap();
    }
    assert_eq!(core.counters.clock_jumps.get(), 0);
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);
}
