//! Draining a worker, over planes, reconnects and restarts.

use protocol::{
    link::{Hello, ToWorker},
    run::RunState,
};
use test_support::worker::{FakeWorker, hello};

use crate::base::{Db, on_both, reached, submit, tenant};

on_both!(a_drained_worker_finishes_and_gets_nothing_new, a_drain_is_heard_of_on_another_plane);

async fn told(worker: &mut FakeWorker) -> &'static str {
    worker
        .next_where(|frame| match frame {
            ToWorker::Drain(_) => Some("drain"),
            ToWorker::Resume(_) => Some("resume"),
            ToWorker::TaskAssignment(_) => Some("work"),
            _ => None,
        })
        .await
}

async fn a_drained_worker_finishes_and_gets_nothing_new(db: Db) {
    let plane = db.plane().await;
    let core = &plane.core;
    let mut worker = plane.worker("w1", 2).await;
    submit(core, &tenant('a'), "runs already").await;
    let first = worker.next_assignment().await;
    worker.claim(&first).await;
    reached(core, &first.task_id, RunState::Claimed).await;

    core.store.drain_worker(&"w1".parse().unwrap(), core.now()).await.unwrap();
    core.store.drain_worker(&"w1".parse().unwrap(), core.now() + 5).await.unwrap();
    assert_eq!(told(&mut worker).await, "drain");
    let drains = core.store.drains().await.unwrap();
    assert_eq!((drains.len(), drains[0].since, drains[0].running), (1, core.now(), 1));
    let waits = submit(core, &tenant('a'), "waits").await;
    control_plane::dispatch::pass(core).await.unwrap();
    assert_eq!(reached(core, &waits, RunState::Queued).await.attempt, 0);

    // What ran goes on to its own end.
    worker.complete(&first).await;
    worker.report_acked(&first.execution_id).await;
    assert_eq!(reached(core, &first.task_id, RunState::Succeeded).await.attempt, 1);
    assert_eq!(core.store.drains().await.unwrap()[0].running, 0);

    assert!(core.store.resume_worker(&"w1".parse().unwrap()).await.unwrap());
    assert!(!core.store.resume_worker(&"w1".parse().unwrap()).await.unwrap());
    core.wake.queue();
    assert_eq!(told(&mut worker).await, "resume");
    assert_eq!(told(&mut worker).await, "work");
    plane.stop().await;
}

async fn a_drain_is_heard_of_on_another_plane(db: Db) {
    let (one, two) = (db.plane().await, db.plane().await);
    let mut worker = two.worker("w1", 2).await;
    one.core.store.drain_worker(&"w1".parse().unwrap(), one.core.now()).await.unwrap();
    one.core.wake.queue();
    assert_eq!(told(&mut worker).await, "drain");
    drop(worker);

    // It comes back, to the other plane, and to one that has just started: drained as before.
    let again = Hello { draining: true, ..hello(2) };
    let worker = FakeWorker::connect_with(&one.url(), "unused", "w1", again.clone()).await;
    two.stop().await;
    let three = db.plane().await;
    let mut fresh = three.worker("w1", 2).await;
    assert_eq!(told(&mut fresh).await, "drain");
    let waits = submit(&three.core, &tenant('a'), "waits").await;
    for plane in [&one, &three] {
        control_plane::dispatch::pass(&plane.core).await.unwrap();
    }
    assert_eq!(reached(&one.core, &waits, RunState::Queued).await.attempt, 0);
    drop((worker, fresh));

    // One that was drained when it left, and resumed meanwhile, hears so.
    assert!(one.core.store.resume_worker(&"w1".parse().unwrap()).await.unwrap());
    let mut back = FakeWorker::connect_with(&one.url(), "unused", "w1", again).await;
    assert_eq!(told(&mut back).await, "resume");
    one.stop().await;
    three.stop().await;
}
