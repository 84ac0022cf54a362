//! The direct backend: the same sidecar as a plain process.

use protocol::link::FromWorker;

use crate::rig::{Rig, command};

#[tokio::test]
async fn a_run_without_an_engine() {
    let rig = Rig::direct().await;
    let spec = command("cat; echo; pwd");
    rig.plane.assign(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    rig.plane.output_line(&spec, "the prompt").await;
    rig.finish().await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_processes_up_again() {
    let mut rig = Rig::direct().await;
    let spec = command("for n in $(seq 1 40); do echo n $n; sleep 0.05; done");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "n 5").await;
    rig.kill();
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    let expected: Vec<String> = (1..=40).map(|n| format!("n {n}")).collect();
    assert_eq!(rig.plane.output(&spec).lines().collect::<Vec<_>>(), expected);
    rig.finish().await;
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_process() {
    let rig = Rig::direct().await;
    let spec = command("echo pid $$; trap '' TERM INT; while :; do sleep 1; done");
    rig.plane.assign(&spec);
    let pid = test_support::wait::eventually("its process id", || async {
        let said = rig.plane.output(&spec);
        said.trim().strip_prefix("pid ").map(str::to_owned)
    })
    .await;
    rig.plane.cancel(&spec);
    rig.plane.report(&spec).await;
    test_support::wait::eventually("its process to go", || async {
        (!std::path::Path::new("/proc").join(&pid).exists()).then_some(())
    })
    .await;
    rig.finish().await;
}
