//! Stopping at every stage: by the user, by the plane, by the operator.

use protocol::{
    failure::FailureReason,
    link::{Drain, FromWorker, ToWorker},
};
use test_support::{silence::Silence, wait::eventually};

use crate::rig::{Rig, command};

fn is_cancelled(report: &FromWorker) -> bool {
    matches!(report, FromWorker::TaskCompleted(done) if done.task_state.as_deref() == Some("CANCELLED"))
}

#[tokio::test]
async fn a_cancel_during_the_pull_ends_it() {
    let rig = Rig::docker().await;
    let registry = Silence::start_on("127.0.0.1:0").await;
    let mut spec = command("true");
    spec.image = format!("{}/never:1", registry.addr());
    rig.plane.assign(&spec);
    eventually("the pull", || async { (registry.accepted() > 0).then_some(()) }).await;
    rig.plane.cancel(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(is_cancelled(&report), "{report:?}");
    rig.finish().await;
}

#[tokio::test]
async fn a_cancel_of_a_running_provider_interrupts_it_and_still_collects() {
    let rig = Rig::docker().await;
    let spec =
        command("trap 'echo interrupted; exit 3' TERM INT; echo up; while :; do sleep 0.1; done");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    rig.plane.cancel(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(is_cancelled(&report), "{report:?}");
    rig.plane.output_line(&spec, "interrupted").await;
    rig.finish().await;
}

#[tokio::test]
async fn a_superseded_run_is_removed_without_a_report() {
    let rig = Rig::docker().await;
    let spec = command("echo up; sleep 300");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    rig.plane.supersede(&spec);
    eventually("its folder to go", || async { (rig.homes() == 0).then_some(()) }).await;
    assert!(rig.plane.seen().reports.is_empty());
    rig.finish().await;
}

#[tokio::test]
async fn a_draining_worker_finishes_what_it_has_and_takes_nothing_new() {
    let rig = Rig::docker().await;
    let (first, second) = (command("echo up; sleep 2; echo done"), command("true"));
    rig.plane.assign(&first);
    rig.plane.output_line(&first, "up").await;
    rig.drain();
    rig.plane.assign(&second);
    eventually("a heartbeat that says so", || async {
        let seen = rig.plane.seen();
        let heartbeat = seen.heartbeat.as_ref()?;
        (heartbeat.draining && heartbeat.free == 0).then_some(())
    })
    .await;
    rig.ended().await.unwrap();
    assert_eq!(rig.plane.seen().rejected[0].0, second.execution_id);
    let report = rig.plane.report(&first).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    rig.finish().await;
}

#[tokio::test]
async fn the_plane_may_drain_a_worker_that_goes_on_living() {
    let rig = Rig::docker().await;
    rig.plane.say(&ToWorker::Drain(Drain {}));
    let spec = command("true");
    rig.plane.assign(&spec);
    eventually("a rejection", || async { rig.plane.seen().rejected.pop() }).await;
    assert!(rig.is_running());
    rig.finish().await;
}

#[tokio::test]
async fn an_aborting_worker_hands_back_what_runs() {
    let rig = Rig::docker().await;
    let spec = command("echo up; sleep 300");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    rig.abort();
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(failed.failure_reason, Some(FailureReason::GracefulShutdown));
    rig.ended().await.unwrap();
    rig.finish().await;
}
