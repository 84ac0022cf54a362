//! Dispatch over real sockets: who gets what, and what an assignment holds.

use std::time::Duration;

use control_plane::{
    core::Settings,
    link,
    runs::{self, NewRun},
};
use protocol::{failure::FailureReason, run::RunState};
use service::clock::Clock;
use test_support::{wait::eventually, worker::FakeWorker};

use crate::base::{Db, START, environment, on_both, prompt, reached, settings, submit, tenant};

on_both!(
    a_run_goes_to_a_free_slot,
    a_full_worker_gets_no_more_until_a_slot_is_free,
    work_is_shared_out,
    a_draining_worker_gets_nothing,
    an_assignment_holds_everything_and_its_values,
    a_stock_worker_finds_its_task_in_variables,
    a_run_that_waits_says_so,
    a_run_is_tried_again_after_its_wait,
);

async fn a_run_goes_to_a_free_slot(db: Db) {
    let plane = db.plane().await;
    let early = submit(&plane.core, &tenant('a'), "before the worker").await;
    let mut worker = plane.worker("w1", 2).await;
    assert_eq!(worker.next_assignment().await.task_id, early);
    let late = submit(&plane.core, &tenant('a'), "after it").await;
    assert_eq!(worker.next_assignment().await.task_id, late);
    plane.stop().await;
}

async fn a_full_worker_gets_no_more_until_a_slot_is_free(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    submit(&plane.core, &tenant('a'), "first").await;
    let first = worker.next_assignment().await;
    worker.claim(&first).await;
    let second = submit(&plane.core, &tenant('a'), "second").await;
    reached(&plane.core, &first.task_id, RunState::Claimed).await;
    control_plane::dispatch::pass(&plane.core).await.unwrap();
    assert_eq!(reached(&plane.core, &second, RunState::Queued).await.attempt, 0);

    // A second worker takes it at once; the first one is told nothing of it.
    let mut other = plane.worker("w2", 1).await;
    assert_eq!(other.next_assignment().await.task_id, second);
    let third = submit(&plane.core, &tenant('a'), "third").await;
    worker.complete(&first).await;
    worker.report_acked(&first.execution_id).await;
    assert_eq!(worker.next_assignment().await.task_id, third);
    plane.stop().await;
}

async fn work_is_shared_out(db: Db) {
    let plane = db.plane().await;
    let mut workers = [plane.worker("w1", 2).await, plane.worker("w2", 2).await];
    for text in ["one", "two"] {
        submit(&plane.core, &tenant('a'), text).await;
    }
    for worker in &mut workers {
        worker.next_assignment().await;
    }
    plane.stop().await;
}

async fn a_draining_worker_gets_nothing(db: Db) {
    let plane = db.plane().await;
    let hello = protocol::link::Hello { draining: true, ..test_support::worker::hello(5) };
    let _draining = FakeWorker::connect_with(&plane.url(), "unused", "w1", hello).await;
    let id = submit(&plane.core, &tenant('a'), "x").await;
    control_plane::dispatch::pass(&plane.core).await.unwrap();
    assert_eq!(reached(&plane.core, &id, RunState::Queued).await.attempt, 0);
    let mut ready = plane.worker("w2", 1).await;
    assert_eq!(ready.next_assignment().await.task_id, id);
    let seen = link::connected(&plane.core).await.unwrap();
    let seen: Vec<_> =
        seen.iter().map(|row| (row.worker_id.as_str(), row.draining, row.capacity)).collect();
    assert_eq!(seen, [("w1", 1, 5), ("w2", 0, 1)]);
    plane.stop().await;
}

async fn an_assignment_holds_everything_and_its_values(db: Db) {
    let plane = db.plane().await;
    let ann = tenant('a');
    let shop = environment(&plane.core, &ann, &[("TOKEN", "s3cret")]).await;
    let new = NewRun {
        environment_id: Some(shop.id),
        title: Some("Fix it".to_owned()),
        model_id: Some("small".to_owned()),
        ..prompt("quotes \" and $HOME\nand lines")
    };
    let run = runs::submit(&plane.core, &ann, new).await.unwrap().run_id;
    let mut worker = plane.worker("w1", 1).await;
    let assignment = worker.next_assignment().await;
    let spec = assignment.spec.unwrap();
    assert_eq!((&spec.run_id, &spec.execution_id), (&run, &assignment.execution_id));
    assert_eq!((spec.prompt.as_str(), spec.attempt), ("quotes \" and $HOME\nand lines", 1));
    assert_eq!((spec.image.as_str(), spec.title.as_str()), ("shop:1", "Fix it"));
    assert_eq!(spec.env["TOKEN"].expose(), "s3cret");
    assert_eq!(spec.harness.model.as_deref(), Some("small"));
    assert_eq!(spec.tenant_id, *ann.owner());
    assert!(assignment.env_vars.is_empty());
    plane.stop().await;
}

async fn a_stock_worker_finds_its_task_in_variables(db: Db) {
    let with_sidecar = Settings { sidecar_image: Some("sidecar:1".to_owned()), ..settings() };
    let plane = db.plane_with(Clock::by_hand(START), with_sidecar).await;
    let ann = tenant('a');
    let shop = environment(&plane.core, &ann, &[("A", "1"), ("B", "2")]).await;
    let new = NewRun { environment_id: Some(shop.id), ..prompt("do it") };
    let run = runs::submit(&plane.core, &ann, new).await.unwrap().run_id;
    let mut worker = FakeWorker::connect_stock(&plane.url(), "unused", "stock 1").await;
    let assignment = worker.next_assignment().await;
    assert!(assignment.spec.is_none());
    assert_eq!((&assignment.task.id, assignment.docker_image.as_str()), (&run, "shop:1"));
    assert_eq!(assignment.sidecar_image, "sidecar:1");
    assert_eq!(assignment.task.task_definition.prompt, "do it");
    assert_eq!(assignment.env_vars["OZ_TASK_PROMPT"].expose(), "do it");
    assert_eq!(assignment.env_vars["OZ_ENV_VARS"].expose(), "A=1\nB=2");
    assert!(!assignment.env_vars.contains_key("OZ_ENV_REPOS"));

    worker.claim(&assignment).await;
    reached(&plane.core, &run, RunState::Claimed).await;
    worker.fail(&assignment, FailureReason::ContainerExit, "it exited").await;
    assert_eq!(reached(&plane.core, &run, RunState::Failed).await.message.unwrap(), "it exited");
    plane.stop().await;
}

async fn a_run_that_waits_says_so(db: Db) {
    let plane = db.plane().await;
    let ann = tenant('a');
    let alone = runs::submit(&plane.core, &ann, prompt("nobody there")).await.unwrap();
    assert!(alone.at_capacity);
    let mut worker = plane.worker("w1", 3).await;
    worker.next_assignment().await;
    let welcome = runs::submit(&plane.core, &ann, prompt("room for it")).await.unwrap();
    assert!(!welcome.at_capacity);
    plane.stop().await;
}

async fn a_run_is_tried_again_after_its_wait(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), slow).await;
    let mut worker = plane.worker("w1", 1).await;
    let id = submit(&plane.core, &tenant('a'), "x").await;
    let first = worker.next_assignment().await;
    worker.claim(&first).await;
    worker.fail(&first, FailureReason::ImagePull, "the registry is away").await;
    worker.report_acked(&first.execution_id).await;
    let waiting = reached(&plane.core, &id, RunState::Queued).await;
    assert_eq!(waiting.message.as_deref(), Some("the registry is away"));
    control_plane::dispatch::pass(&plane.core).await.unwrap();
    reached(&plane.core, &id, RunState::Queued).await;

    clock.advance(Duration::from_secs(10));
    let second = worker.next_assignment().await;
    assert_eq!(second.spec.unwrap().attempt, 2);
    assert_ne!(second.execution_id, first.execution_id);
    let attempts = eventually("the failed attempt is readable", async || {
        runs::attempts(&plane.core, &tenant('a'), &id).await.ok().filter(|all| !all.is_empty())
    })
    .await;
    assert_eq!(attempts[0].reason, Some(FailureReason::ImagePull));
    plane.stop().await;
}
