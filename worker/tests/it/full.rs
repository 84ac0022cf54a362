//! Full disks: the worker's own, and the engine's, which is the containers'. A run goes on or ends by a named
//! cause; what was said arrives.

use protocol::{failure::FailureReason, link::FromWorker, spec::RunSpec};
use test_support::{
    disk::SmallDisk,
    engine::{Engine, Restore},
    image::docker,
    wait::eventually,
};
use worker::config::Link;

use crate::rig::{Rig, SIDECAR_IMAGE, command, container};

async fn assert_completed(rig: &Rig, spec: &RunSpec) {
    let report = rig.plane.report(spec).await;
    assert!(
        matches!(&report, FromWorker::TaskCompleted(done) if done.exit_code == Some(0)),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_state_folder_refuses_new_runs_by_name_and_harms_none_that_runs() {
    let disk = SmallDisk::with_bytes(1 << 20);
    let mut rig = Rig::new().await;
    // Seen by this process alone: nothing of it can be mounted.
    rig.config.link = Link::Stdio;
    rig.config.state_dir = disk.path().join("s");
    rig.config.min_free_bytes = 0;
    rig.start().await;
    let running =
        command("echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 1 5000; exit 3");
    rig.plane.assign(&running);
    rig.plane.output_line(&running, "up").await;
    disk.fill();

    let refused = command("true");
    rig.plane.assign(&refused);
    let report = rig.plane.report(&refused).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    let reason = failed.failure_reason.unwrap();
    assert_eq!(reason, FailureReason::WorkspaceSetup, "{failed:?}");
    assert!(reason.retryable() && failed.message.contains("No space left"), "{failed:?}");

    docker(&["exec", &container(&running), "touch", "/tmp/go"], &[]);
    let report = rig.plane.report(&running).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(
        (failed.failure_reason, failed.exit_code),
        (Some(FailureReason::AgentExit), Some(3))
    );
    let expected = std::iter::once("up".to_owned()).chain((1..=5000).map(|n| n.to_string()));
    assert!(rig.plane.output(&running).lines().eq(expected));

    disk.make_room();
    let next = command("echo next");
    rig.plane.assign(&next);
    assert_completed(&rig, &next).await;
    eventually("every folder to go", || async {
        let entries = std::fs::read_dir(&rig.config.state_dir).unwrap();
        (entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count() == 0).then_some(())
    })
    .await;
    rig.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_fills_its_disk_still_says_everything() {
    let engine = Engine::on_small_disk(Restore::Live, 96 << 20, &[SIDECAR_IMAGE]);
    for (link, code) in [(Link::Socket, 0), (Link::Stdio, 3)] {
        let mut rig = Rig::new().await;
        rig.config.docker_host = Some(engine.host());
        rig.config.link = link;
        rig.config.min_free_bytes = 0;
        rig.start().await;
        let line = format!(
            "dd if=/dev/zero of=/tmp/fill bs=64k 2>/dev/null || echo full; \
             while [ ! -e /dev/shm/go ]; do sleep 0.05; done; seq 1 20000; exit {code}"
        );
        let spec = command(&line);
        rig.plane.assign(&spec);
        rig.plane.output_line(&spec, "full").await;

        // Nor can another be made meanwhile, and that is said.
        let other = command("true");
        rig.plane.assign(&other);
        if let FromWorker::TaskFailed(failed) = rig.plane.report(&other).await {
            let reason = failed.failure_reason.unwrap();
            assert!(reason.retryable() || reason == FailureReason::WorkspaceSetup, "{failed:?}");
        }

        engine.docker(&["exec", &container(&spec), "touch", "/dev/shm/go"]);
        let report = rig.plane.report(&spec).await;
        let exit_code = match &report {
            FromWorker::TaskCompleted(done) => done.exit_code,
            FromWorker::TaskFailed(failed) => {
                assert_eq!(failed.failure_reason, Some(FailureReason::AgentExit), "{failed:?}");
                failed.exit_code
            }
            _ => None,
        };
        assert_eq!(exit_code, Some(code));
        let expected =
            std::iter::once("full".to_owned()).chain((1..=20_000).map(|n| n.to_string()));
        assert!(rig.plane.output(&spec).lines().eq(expected));
        rig.finish().await;
    }
}
