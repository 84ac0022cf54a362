//! Whether a run is tried again: every cause of failure under every kind of policy; what is told of the attempts,
//! and how a run that waits for another one ends.

use std::{collections::BTreeSet, time::Duration};

use control_plane::{
    core::{Core, Settings},
    runs::{self, NewRun},
};
use protocol::{
    failure::{FailureReason, Fault},
    ids::RunId,
    retry::{FailureClass, RetryPolicy},
    run::RunState,
};
use serde_json::json;
use service::clock::Clock;
use test_support::worker::FakeWorker;

use crate::{
    base::{Db, START, on_both, prompt, settings, submit, tenant},
    edge::{ADMIN, Edge},
    step::{claim, claim_up_to, claimed, failed, report, state},
};

on_both!(
    every_cause_under_every_policy,
    attempts_run_out,
    an_environment_s_policy_holds_where_the_run_s_says_nothing,
    waits_before_another_attempt_differ_and_grow,
    a_run_that_waits_for_another_attempt_can_be_cancelled,
);

async fn submit_with(core: &Core, retry: RetryPolicy) -> RunId {
    let new = NewRun { retry, ..prompt("x") };
    runs::submit(core, &tenant('a'), new).await.unwrap().run_id
}

/// Fails the only run there is to claim.
async fn fail(core: &Core, reason: FailureReason) {
    let run = claim(core).await;
    report(core, &run, claimed(core)).await;
    report(core, &run, failed(reason)).await;
}

async fn every_cause_under_every_policy(db: Db) {
    let core = db.core().await;
    for reason in FailureReason::ALL.iter().copied() {
        let over = match reason.fault() {
            Fault::User => RunState::Failed,
            Fault::Platform => RunState::Error,
        };
        let usual = match reason.fault() {
            Fault::User => RunState::Failed,
            Fault::Platform => RunState::Queued,
        };
        // A cancel is in no class.
        let asked = if reason.class().is_some() { RunState::Queued } else { over };
        let on = |on: Vec<FailureClass>| RetryPolicy { on: Some(on), max_attempts: None };
        let others = FailureClass::ALL.into_iter().filter(|class| Some(*class) != reason.class());
        let once = RetryPolicy { max_attempts: Some(1), ..on(FailureClass::ALL.to_vec()) };
        for (policy, expected) in [
            (RetryPolicy::default(), usual),
            (on(reason.class().into_iter().collect()), asked),
            (on(others.collect()), over),
            (on(Vec::new()), over),
            (once, over),
        ] {
            let id = submit_with(&core, policy.clone()).await;
            fail(&core, reason).await;
            assert_eq!(state(&core, &id).await, expected, "{reason} under {policy:?}");
            if expected == RunState::Queued {
                runs::cancel(&core, &tenant('a'), &id).await.unwrap();
            }
        }
    }
    assert!(core.counters.failed.all().all(|(_, count)| count == 5));
    let requeued: BTreeSet<_> = core.counters.requeued.all().map(|(r, _)| r.as_str()).collect();
    assert_eq!(requeued.len(), FailureReason::ALL.len() - 1);
    assert!(!requeued.contains("task_cancelled"));
}

async fn attempts_run_out(db: Db) {
    let core = db.core().await;
    let policy = RetryPolicy {
        max_attempts: Some(4),
        on: Some(vec![FailureClass::Oom, FailureClass::Agent]),
    };
    let id = submit_with(&core, policy).await;
    for (nth, reason) in
        [FailureReason::AgentExit, FailureReason::ContainerOom, FailureReason::AgentLimit]
            .into_iter()
            .enumerate()
    {
        core.clock.advance(Duration::from_secs(1));
        fail(&core, reason).await;
        let run = runs::get(&core, &tenant('a'), &id).await.unwrap();
        let attempt = u32::try_from(nth).unwrap() + 1;
        assert_eq!((run.state, run.attempt), (RunState::Queued, attempt));
        assert!(run.next_attempt_at.is_some());
    }
    fail(&core, FailureReason::AgentExit).await;
    let run = runs::get(&core, &tenant('a'), &id).await.unwrap();
    assert_eq!((run.state, run.attempt, run.max_attempts), (RunState::Failed, 4, 4));
    assert_eq!((run.next_attempt_at, run.queue_until), (None, None));
    let attempts = runs::attempts(&core, &tenant('a'), &id).await.unwrap();
    let told: Vec<_> = attempts.iter().map(|a| (a.attempt, a.reason.unwrap())).collect();
    assert_eq!(
        told,
        [
            (1, FailureReason::AgentExit),
            (2, FailureReason::ContainerOom),
            (3, FailureReason::AgentLimit),
            (4, FailureReason::AgentExit),
        ]
    );
    for (nth, attempt) in (1..).zip(&attempts[..3]) {
        assert_eq!(attempt.worker_id.as_str(), "w1");
        assert_eq!(
            (attempt.assigned_at, attempt.ended_at),
            (START + nth * 1_000, START + nth * 1_000)
        );
        assert!(attempt.message.as_deref().unwrap().starts_with("because of"));
    }
}

async fn an_environment_s_policy_holds_where_the_run_s_says_nothing(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    let mut shop = crate::base::new_environment("shop", &[]);
    shop.spec.retry = RetryPolicy { max_attempts: Some(2), on: Some(vec![FailureClass::Setup]) };
    let shop = control_plane::environments::create(&core, &ann, shop).await.unwrap().id;
    let with =
        |retry: RetryPolicy| NewRun { environment_id: Some(shop.clone()), retry, ..prompt("x") };
    let plain = runs::submit(&core, &ann, with(RetryPolicy::default())).await.unwrap().run_id;
    fail(&core, FailureReason::SetupCommand).await;
    assert_eq!(state(&core, &plain).await, RunState::Queued);
    fail(&core, FailureReason::SetupCommand).await;
    assert_eq!(state(&core, &plain).await, RunState::Failed);

    // What a run says takes the place of one part, and leaves the other.
    let once = RetryPolicy { max_attempts: Some(1), on: None };
    let once = runs::submit(&core, &ann, with(once)).await.unwrap().run_id;
    fail(&core, FailureReason::SetupCommand).await;
    assert_eq!(state(&core, &once).await, RunState::Failed);
}

async fn waits_before_another_attempt_differ_and_grow(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let mut due = BTreeSet::new();
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(submit_with(&core, RetryPolicy::default()).await);
        fail(&core, FailureReason::ImagePull).await;
    }
    for id in &ids {
        let run = runs::get(&core, &tenant('a'), id).await.unwrap();
        let wait = run.next_attempt_at.unwrap() - core.now();
        assert!((5_000..=10_000).contains(&wait), "{wait}");
        due.insert(wait);
    }
    assert!(due.len() > 6, "a fleet would fall over the same stone together: {due:?}");
    assert!(claim_up_to(&core, 100).await.is_empty(), "before it is due nobody gets it");
    core.clock.advance(Duration::from_secs(10));
    let again = claim_up_to(&core, 100).await;
    assert_eq!(again.len(), ids.len());
    for run in &again {
        assert_eq!(run.attempt, 2);
        report(&core, run, claimed(&core)).await;
        report(&core, run, failed(FailureReason::ImagePull)).await;
        let seen = runs::get(&core, &tenant('a'), &run.run_id).await.unwrap();
        let wait = seen.next_attempt_at.unwrap() - core.now();
        assert!((10_000..=20_000).contains(&wait), "{wait}");
    }
}

async fn a_run_that_waits_for_another_attempt_can_be_cancelled(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let id = submit(&core, &tenant('a'), "x").await;
    fail(&core, FailureReason::WorkerLost).await;
    runs::cancel(&core, &tenant('a'), &id).await.unwrap();
    assert_eq!(state(&core, &id).await, RunState::Cancelled);
    core.clock.advance(Duration::from_mins(2));
    assert!(claim_up_to(&core, 9).await.is_empty());
    let attempts = runs::attempts(&core, &tenant('a'), &id).await.unwrap();
    assert_eq!(attempts[0].reason, Some(FailureReason::WorkerLost));
}

#[tokio::test]
async fn a_run_tells_of_its_failed_attempts_and_of_the_next_one() {
    let edge = Edge::start().await;
    let body = json!({"prompt": "x", "config": {"retry": {"max_attempts": 2, "on": ["agent"]}}});
    let made = edge.post("alice", "/api/v1/agent/runs", &body).await.ok();
    let path = format!("/api/v1/agent/runs/{}", made["run_id"].as_str().unwrap());
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let task = worker.next_assignment().await;
    worker.claim(&task).await;
    worker.fail(&task, FailureReason::AgentExit, "it ended with code 7").await;
    worker.report_acked(&task.execution_id).await;

    let run = edge.get("alice", &path).await.ok();
    assert_eq!((&run["state"], &run["max_attempts"]), (&json!("QUEUED"), &json!(2)));
    assert_eq!(run["status_message"]["message"], "it ended with code 7");
    let failed = &run["attempts"][0];
    assert_eq!((&failed["attempt"], &failed["reason"]), (&json!(1), &json!("agent_exit")));
    assert_eq!(
        (&failed["message"], &failed["worker_host"]),
        (&json!("it ended with code 7"), &json!("w-1"))
    );
    let time = |value: &serde_json::Value| value.as_str().expect("a time").to_owned();
    assert!(time(&failed["assigned_at"]) <= time(&failed["ended_at"]));
    assert!(time(&run["next_attempt_at"]) > time(&failed["ended_at"]));
    assert_eq!(run["policy"]["retry_on"], json!(["agent"]));

    let again = worker.next_assignment().await;
    worker.claim(&again).await;
    worker.fail(&again, FailureReason::AgentExit, "it ended with code 8").await;
    worker.report_acked(&again.execution_id).await;
    let run = edge.get("alice", &path).await.ok();
    assert_eq!((&run["state"], &run["attempts"][1]["attempt"]), (&json!("FAILED"), &json!(2)));
    assert!(run.get("next_attempt_at").is_none());
    edge.stop().await;
}
