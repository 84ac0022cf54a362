//! Every failure is told by its name.

use protocol::{
    failure::FailureReason,
    link::{FromWorker, TaskFailed},
    spec::RunSpec,
};
use test_support::{
    image::{self, docker},
    registry::Registry,
};
use worker::config::PullPolicy;

use crate::rig::{Rig, command, container};

async fn failure(rig: &Rig, spec: &RunSpec) -> TaskFailed {
    match rig.plane.report(spec).await {
        FromWorker::TaskFailed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_exit_code_is_the_agents() {
    let rig = Rig::docker().await;
    let spec = command("exit 7");
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::AgentExit));
    assert_eq!(failed.exit_code, Some(7));
    rig.finish().await;
}

#[tokio::test]
async fn memory_is_named() {
    let rig = Rig::docker().await;
    let mut spec = command("tail /dev/zero");
    spec.shape.memory_bytes = Some(48 << 20);
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::ContainerOom), "{failed:?}");
    assert!(failed.oom_killed);
    assert_eq!(failed.exit_code, Some(137));
    assert!(failed.peak_memory_bytes.is_some_and(|peak| peak > 40 << 20), "{failed:?}");
    rig.finish().await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let mut rig = Rig::new().await;
    rig.config.pull_policy = PullPolicy::Never;
    rig.start().await;
    let mut spec = command("true");
    spec.image = "ozma-test:never-made".to_owned();
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::ImagePull));
    assert!(failed.message.contains("ozma-test:never-made"), "{}", failed.message);
    rig.finish().await;
}

#[tokio::test]
async fn an_image_that_a_registry_has_not_is_told_from_a_registry_that_is_away() {
    let rig = Rig::docker().await;
    let registry = Registry::of(image::busybox());
    for (image, told) in [
        (registry.missing(), "has no such image"),
        ("127.0.0.1:1/nobody:1".to_owned(), "could not be reached"),
    ] {
        let mut spec = command("true");
        spec.image.clone_from(&image);
        rig.plane.assign(&spec);
        let failed = failure(&rig, &spec).await;
        assert_eq!(failed.failure_reason, Some(FailureReason::ImagePull));
        assert!(failed.message.contains(told) && failed.message.contains(&image), "{failed:?}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn an_image_with_a_file_in_our_place_is_the_users_to_mend() {
    let rig = Rig::docker().await;
    for file in ["run", "agent"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), "x").unwrap();
        let mut spec = command("true");
        spec.image = format!("ozma-test:{file}-{}", rig.config.worker_id);
        image::import(folder.path(), &spec.image);
        rig.plane.assign(&spec);
        let failed = failure(&rig, &spec).await;
        image::remove(&spec.image);
        let reason = failed.failure_reason.unwrap();
        assert_eq!(reason, FailureReason::AgentInvocation, "{failed:?}");
        assert!(!reason.retryable());
        assert!(failed.message.contains(&format!("/{file}")), "{failed:?}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_provider_that_interrupts_its_own_harness_is_not_cancelled() {
    let rig = Rig::docker().await;
    let spec = command("echo up; kill -TERM $PPID; sleep 300");
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::AgentExit), "{failed:?}");
    rig.finish().await;
}

#[tokio::test]
async fn a_sidecar_image_that_is_not_there_is_named() {
    let mut rig = Rig::new().await;
    rig.config.pull_policy = PullPolicy::Never;
    rig.config.sidecar_image = "ozma-test:no-sidecar".to_owned();
    rig.start().await;
    let spec = command("true");
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::SidecarPrep));
    rig.finish().await;
}

#[tokio::test]
async fn a_sidecar_image_without_a_sidecar_is_named() {
    let mut rig = Rig::new().await;
    rig.config.sidecar_image = image::busybox().to_owned();
    rig.start().await;
    for _ in 0..2 {
        let spec = command("true");
        rig.plane.assign(&spec);
        let failed = failure(&rig, &spec).await;
        assert_eq!(failed.failure_reason, Some(FailureReason::SidecarPrep), "{failed:?}");
        assert!(failed.message.contains("/agent/ozma-sidecar"), "{}", failed.message);
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_container_that_cannot_be_created_is_named() {
    let mut rig = Rig::new().await;
    rig.config.runtime = Some("no-such-runtime".to_owned());
    rig.start().await;
    let spec = command("true");
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::ContainerCreate), "{failed:?}");
    assert!(failed.message.contains("no-such-runtime"), "{}", failed.message);
    rig.finish().await;
}

#[tokio::test]
async fn a_killed_container_is_no_success_and_its_last_words_are_kept() {
    let rig = Rig::docker().await;
    let spec = command("echo before; sleep 300");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "before").await;
    docker(&["kill", &container(&spec)], &[]);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::ContainerExit));
    assert_eq!(failed.exit_code, Some(137));
    rig.finish().await;
}

#[tokio::test]
async fn a_time_that_is_over_is_named() {
    let rig = Rig::docker().await;
    let mut spec = command("sleep 300");
    spec.timeouts.run_secs = 1;
    rig.plane.assign(&spec);
    let failed = failure(&rig, &spec).await;
    assert_eq!(failed.failure_reason, Some(FailureReason::TaskTimeout), "{failed:?}");
    rig.finish().await;
}
