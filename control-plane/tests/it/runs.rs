//! Runs through their executions, step by step, on both databases: claims, facts, attempts, cancels and leases,
//! as the store sees them.

use std::time::Duration;

use control_plane::{
    core::Settings,
    reports,
    runs::{self, CancelError, NewRun},
    store::{Claimant, Ending, Ingested, Measured, Recorded, Report},
};
use protocol::{
    event::{Event, EventSource, Phase},
    failure::FailureReason,
    ids::{RunId, WorkerId},
    run::RunState,
};
use service::clock::Clock;
use test_support::worker::numbered;

use crate::{
    base::{Db, START, environment, new_environment, on_both, prompt, settings, submit, tenant},
    step::{
        claim, claim_for, claim_up_to, claimant, claimed, failed, ingest, kinds, output, report,
        state, succeeded, with_run, worker,
    },
};

on_both!(
    a_run_succeeds,
    a_users_failure_is_final_and_a_platforms_is_tried_again,
    a_declined_run_loses_no_attempt,
    a_cancel_in_each_state,
    a_cancelled_run_whose_worker_is_lost_is_cancelled,
    a_lease_is_renewed_by_its_worker_only,
    facts_of_superseded_executions_are_refused,
    one_run_is_claimed_once_by_many,
    owners_take_turns,
    a_named_worker_gets_its_runs_only,
    a_queued_run_keeps_its_environment,
    attempts_stay_readable,
);

async fn a_run_succeeds(db: Db) {
    let core = db.core().await;
    let id = submit(&core, &tenant('a'), "do it").await;
    assert!(core.store.calls().await.unwrap().waiting);
    core.clock.advance(Duration::from_millis(250));
    let run = claim(&core).await;
    assert!(!core.store.calls().await.unwrap().waiting);
    assert!(claim_up_to(&core, 1).await.is_empty(), "its only slot is taken");
    assert_eq!((&run.run_id, run.attempt, run.prompt.as_str()), (&id, 1, "do it"));
    assert_eq!(state(&core, &id).await, RunState::Pending);
    let applied = report(&core, &run, claimed(&core)).await;
    let waited = Measured { waited_ms: Some(250), ..Measured::default() };
    let state_after = RunState::Claimed;
    let expected =
        Recorded::Applied { run_id: id.clone(), state: state_after, measured: waited };
    assert_eq!(applied, expected);
    assert_eq!(report(&core, &run, claimed(&core)).await, Recorded::Already);
    let events = [
        output("hi"),
        Event::PhaseFinished { phase: Phase::Clone, duration_ms: 42, ok: true },
        Event::Answer { text: "it is done".to_owned(), scripted: false },
    ];
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    report(&core, &run, succeeded()).await;
    assert_eq!(report(&core, &run, succeeded()).await, Recorded::Already);

    let run = runs::get(&core, &tenant('a'), &id).await.unwrap();
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(run.answer.as_deref(), Some("it is done"));
    assert_eq!((run.exit_code, run.peak_memory_bytes), (Some(0), Some(1 << 20)));
    assert_eq!(
        run.phases.into_iter().collect::<Vec<_>>(),
        [(Phase::Queued, 250), (Phase::Clone, 42)]
    );
    assert_eq!((run.started_at, run.ended_at), (Some(START + 250), Some(START + 250)));
    let expected = [
        "state",
        "state",
        "phase_finished",
        "state",
        "state",
        "output",
        "phase_finished",
        "answer",
        "state",
    ];
    assert_eq!(kinds(&core, &id).await, expected);
    assert_eq!(core.counters.runs_succeeded.get(), 1);
}

async fn a_users_failure_is_final_and_a_platforms_is_tried_again(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    report(&core, &run, failed(FailureReason::SetupCommand)).await;
    let seen = runs::get(&core, &tenant('a'), &run.run_id).await.unwrap();
    assert_eq!((seen.state, seen.reason), (RunState::Failed, Some(FailureReason::SetupCommand)));

    let id = submit(&core, &tenant('a'), "unlucky").await;
    for attempt in 1..=3 {
        let run = claim(&core).await;
        assert_eq!(run.attempt, attempt);
        report(&core, &run, claimed(&core)).await;
        report(&core, &run, failed(FailureReason::ImagePull)).await;
        let expected = if attempt < 3 { RunState::Queued } else { RunState::Error };
        let seen = runs::get(&core, &tenant('a'), &id).await.unwrap();
        assert_eq!((seen.state, seen.reason), (expected, Some(FailureReason::ImagePull)));
    }
    assert!(claim_up_to(&core, 9).await.is_empty());
}

async fn a_declined_run_loses_no_attempt(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let id = submit(&core, &tenant('a'), "x").await;
    for _ in 0..5 {
        let run = claim(&core).await;
        assert_eq!(run.attempt, 1);
        report(&core, &run, Report::Declined { message: "full".to_owned() }).await;
        assert_eq!(state(&core, &id).await, RunState::Queued);
        assert!(claim_up_to(&core, 9).await.is_empty(), "it waits a moment");
        assert_eq!(report(&core, &run, claimed(&core)).await, Recorded::Superseded);
        core.clock.advance(Duration::from_mins(1));
    }
    assert!(runs::attempts(&core, &tenant('a'), &id).await.unwrap().is_empty());
}

async fn a_cancel_in_each_state(db: Db) {
    let ann = tenant('a');
    let core = db.core().await;
    let queued = submit(&core, &ann, "queued").await;
    runs::cancel(&core, &ann, &queued).await.unwrap();
    let seen = runs::get(&core, &ann, &queued).await.unwrap();
    assert_eq!(
        (seen.state, seen.reason),
        (RunState::Cancelled, Some(FailureReason::TaskCancelled))
    );
    assert!(matches!(runs::cancel(&core, &ann, &queued).await, Err(CancelError::Terminal)));
    let unknown = "0198c5f0-0000-7000-8000-000000000000".parse().unwrap();
    assert!(matches!(runs::cancel(&core, &ann, &unknown).await, Err(CancelError::NotFound)));

    submit(&core, &ann, "pending").await;
    let run = claim(&core).await;
    assert!(matches!(runs::cancel(&core, &ann, &run.run_id).await, Err(CancelError::Pending)));

    report(&core, &run, claimed(&core)).await;
    runs::cancel(&core, &ann, &run.run_id).await.unwrap();
    runs::cancel(&core, &ann, &run.run_id).await.unwrap();
    let seen = runs::get(&core, &ann, &run.run_id).await.unwrap();
    assert_eq!((seen.state, seen.cancelling), (RunState::Claimed, true));
    assert_eq!(core.store.calls().await.unwrap().cancels[0].execution_id, run.execution_id);
    let stopped = Report::Stopped {
        message: "stopped".to_owned(),
        exit_code: Some(143),
        peak_memory_bytes: None,
    };
    report(&core, &run, stopped.clone()).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Cancelled);
    assert!(core.store.calls().await.unwrap().cancels.is_empty());

    submit(&core, &ann, "running").await;
    let run = claim(&core).await;
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &[output("hi")])).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);
    runs::cancel(&core, &ann, &run.run_id).await.unwrap();
    // It had ended by itself in between: its user wanted it over, and it is.
    report(&core, &run, succeeded()).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Cancelled);

    // Stopped without having been asked to: not a cancel.
    submit(&core, &ann, "stopped").await;
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    report(&core, &run, stopped).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Queued);
}

async fn a_cancelled_run_whose_worker_is_lost_is_cancelled(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    runs::cancel(&core, &tenant('a'), &run.run_id).await.unwrap();
    core.clock.advance(Duration::from_secs(13));
    control_plane::reaper::pass(&core).await.unwrap();
    assert_eq!(state(&core, &run.run_id).await, RunState::Cancelled);
}

async fn a_lease_is_renewed_by_its_worker_only(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    let ids = [run.execution_id.clone(), "unknown".parse().unwrap()];
    let later = core.now() + 60_000;
    let stranger = "w2".parse().unwrap();
    assert!(core.store.renew(&stranger, &ids, later).await.unwrap().is_empty());
    assert!(core.store.renew(&worker(), &[], later).await.unwrap().is_empty());
    assert_eq!(core.store.renew(&worker(), &ids, later).await.unwrap(), ids[..1]);
    assert!(core.store.expired(later).await.unwrap().is_empty());
    assert_eq!(core.store.expired(later + 1).await.unwrap()[0].id, run.execution_id);
    core.store.renew_instance("i1", later + 5).await.unwrap();
    assert!(core.store.expired(later + 1).await.unwrap().is_empty());
    core.store.adopt(&run.execution_id, "i2", later + 9).await.unwrap();
    assert!(core.store.executions_of_instance("i1").await.unwrap().is_empty());
    let held = core.store.executions_of_instance("i2").await.unwrap();
    assert_eq!((held[0].lease_expires_at, held[0].sidecar_seq), (later + 9, 1));
    let found = core.store.execution_of(&worker(), &run.run_id).await.unwrap().unwrap();
    assert_eq!(found.id, run.execution_id);
    assert!(core.store.execution_of(&stranger, &run.run_id).await.unwrap().is_none());
    // A lease that runs is no reason to end anything.
    let expired = reports::record(&core, &run.execution_id, None, &Report::Expired).await.unwrap();
    assert_eq!(expired, Recorded::Already);
}

async fn facts_of_superseded_executions_are_refused(db: Db) {
    let (core, first) = with_run(&db, RunState::Inprogress).await;
    core.clock.advance(Duration::from_secs(13));
    control_plane::reaper::pass(&core).await.unwrap();
    let second = claim(&core).await;
    assert_eq!((&second.run_id, second.attempt), (&first.run_id, 2));
    for late in [claimed(&core), succeeded(), failed(FailureReason::AgentExit)] {
        assert_eq!(report(&core, &first, late).await, Recorded::Superseded);
    }
    let late = ingest(&core, &first, EventSource::Sidecar, &numbered(2, &[output("late")])).await;
    assert_eq!(late, Ingested::Superseded);
    assert_eq!(core.counters.superseded.get(), 3);
    assert_eq!(state(&core, &first.run_id).await, RunState::Pending);

    // Another worker's word on it counts as little, and so does one on nothing.
    let stranger: WorkerId = "w2".parse().unwrap();
    let word = reports::record(&core, &second.execution_id, Some(&stranger), &succeeded()).await;
    assert_eq!(word.unwrap(), Recorded::Superseded);
    let unknown = "unknown".parse().unwrap();
    let word = reports::record(&core, &unknown, Some(&worker()), &succeeded()).await.unwrap();
    assert_eq!(word, Recorded::Superseded);
    assert!(core.store.execution(&unknown).await.unwrap().is_none());
    let old = core.store.execution(&first.execution_id).await.unwrap().unwrap();
    assert_eq!(old.ending, Some(Ending::Lost));
}

async fn one_run_is_claimed_once_by_many(db: Db) {
    let core = db.core().await;
    let second_plane = db.core().await;
    for n in 0..40 {
        submit(&core, &tenant('a'), &n.to_string()).await;
    }
    let claims = (0..8).map(|n| {
        let core = if n % 2 == 0 { &core } else { &second_plane };
        async move {
            let mut mine = Vec::new();
            loop {
                let claimant = Claimant { instance_id: format!("i{n}"), ..claimant(100) };
                let claimed = claim_for(core, &[claimant]).await;
                if claimed.is_empty() && !core.store.calls().await.unwrap().waiting {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|run| run.run_id));
            }
        }
    });
    let mut all: Vec<RunId> = futures_util::future::join_all(claims).await.concat();
    assert_eq!(all.len(), 40);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40, "no run was claimed twice");
}

async fn owners_take_turns(db: Db) {
    let core = db.core().await;
    for n in 0..4 {
        submit(&core, &tenant('a'), &format!("a{n}")).await;
        core.clock.advance(Duration::from_millis(1));
    }
    for n in 0..2 {
        submit(&core, &tenant('b'), &format!("b{n}")).await;
        core.clock.advance(Duration::from_millis(1));
    }
    let mut order = Vec::new();
    for capacity in [1, 4, 6] {
        for run in claim_up_to(&core, capacity).await {
            order.push(run.prompt);
        }
    }
    assert_eq!(order, ["a0", "b0", "a1", "b1", "a2", "a3"]);
}

async fn a_named_worker_gets_its_runs_only(db: Db) {
    let core = db.core().await;
    let on = |host: &str| NewRun { worker_host: Some(host.to_owned()), ..prompt(host) };
    runs::submit(&core, &tenant('a'), on("w2")).await.unwrap();
    assert!(claim_up_to(&core, 9).await.is_empty());
    runs::submit(&core, &tenant('a'), on("w1")).await.unwrap();
    assert_eq!(claim(&core).await.prompt, "w1");
}

async fn a_queued_run_keeps_its_environment(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    let shop = environment(&core, &ann, &[("KEY", "before")]).await;
    for text in ["one", "two"] {
        let new = NewRun { environment_id: Some(shop.id.clone()), ..prompt(text) };
        runs::submit(&core, &ann, new).await.unwrap();
    }
    let changed = new_environment("shop", &[("KEY", "after")]);
    control_plane::environments::update(&core, &ann, &shop.id, changed).await.unwrap();
    let run = claim_up_to(&core, 1).await.remove(0);
    let opened = core.sealer.open(shop.id.as_str(), run.env_sealed.as_deref().unwrap()).unwrap();
    assert_eq!(opened, br#"{"KEY":"before"}"#);
    assert!(run.snapshot.contains("shop:1"));
    control_plane::environments::delete(&core, &ann, &shop.id).await.unwrap();
    let run = claim_up_to(&core, 2).await.remove(0);
    assert_eq!((run.prompt.as_str(), run.env_sealed.is_some()), ("two", true));
}

async fn attempts_stay_readable(db: Db) {
    let (core, first) = with_run(&db, RunState::Claimed).await;
    report(&core, &first, failed(FailureReason::ImagePull)).await;
    let second = claim(&core).await;
    report(&core, &second, claimed(&core)).await;
    let missing = reports::record(&core, &second.execution_id, None, &Report::Missing).await;
    assert!(matches!(missing.unwrap(), Recorded::Applied { state: RunState::Queued, .. }));
    let attempts = runs::attempts(&core, &tenant('a'), &first.run_id).await.unwrap();
    let reasons: Vec<_> = attempts.iter().map(|a| (a.attempt, a.reason)).collect();
    let expected = [(1, Some(FailureReason::ImagePull)), (2, Some(FailureReason::WorkerLost))];
    assert_eq!(reasons, expected);
    assert_eq!(attempts[0].message.as_deref(), Some("because of image_pull"));
    assert_eq!(attempts[0].exit_code, Some(3));
    assert!(attempts[1].message.as_deref().unwrap().contains("w1"));
}
