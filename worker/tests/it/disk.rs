//! What a worker takes of its disk is measured, told and bounded.

use protocol::{failure::FailureReason, link::FromWorker, spec::RunSpec};
use test_support::{
    image::{self, docker},
    registry::Registry,
    wait::eventually,
};

use crate::rig::{Rig, command, container};

const MIB: u64 = 1 << 20;

async fn rig(change: impl FnOnce(&mut worker::Config)) -> Rig {
    let mut rig = Rig::new().await;
    rig.config.disk_check_ms = 100;
    rig.config.min_free_bytes = 0;
    change(&mut rig.config);
    rig.start().await;
    rig
}

/// Writes so much, says so, and waits to be told to go.
fn writer(mib: u64) -> RunSpec {
    command(&format!(
        "dd if=/dev/zero of=big bs=1M count={mib} 2>/dev/null; echo written; \
         while [ ! -e /tmp/go ]; do sleep 0.05; done"
    ))
}

fn go(spec: &RunSpec) {
    docker(&["exec", &container(spec), "touch", "/tmp/go"], &[]);
}

async fn free_and_used(rig: &Rig, what: &str, test: impl Fn(u32, u64) -> bool) {
    eventually(what, || async {
        let heartbeat = rig.plane.seen().heartbeat.clone()?;
        test(heartbeat.free, heartbeat.disk?.used_bytes).then_some(())
    })
    .await;
}

async fn is_done(rig: &Rig, spec: &RunSpec) {
    let report = rig.plane.report(spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
}

#[tokio::test]
async fn a_run_beyond_its_bound_is_stopped_and_others_are_not() {
    let rig = rig(|config| config.execution_disk_bytes = 20 * MIB).await;
    let (small, big) = (writer(2), writer(40));
    rig.plane.assign(&small);
    rig.plane.assign(&big);
    let report = rig.plane.report(&big).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(failed.failure_reason, Some(FailureReason::AgentLimit), "{failed:?}");
    assert!(failed.message.contains("20 MiB is the most"), "{failed:?}");
    rig.plane.output_line(&small, "written").await;
    go(&small);
    is_done(&rig, &small).await;
    rig.finish().await;
}

#[tokio::test]
async fn at_the_limit_nothing_new_is_taken_until_there_is_room() {
    let rig = rig(|config| config.disk_limit_bytes = 30 * MIB).await;
    let big = writer(40);
    rig.plane.assign(&big);
    free_and_used(&rig, "a full disk", |free, used| free == 0 && used > 30 * MIB).await;
    let refused = command("true");
    rig.plane.assign(&refused);
    let (_, why) = eventually("a rejection", || async { rig.plane.seen().rejected.pop() }).await;
    assert!(why.contains("disk"), "{why}");
    go(&big);
    is_done(&rig, &big).await;
    free_and_used(&rig, "room", |free, used| free > 0 && used < MIB).await;
    let next = command("true");
    rig.plane.assign(&next);
    is_done(&rig, &next).await;
    rig.finish().await;
}

#[tokio::test]
async fn without_free_space_nothing_is_taken() {
    let rig = rig(|config| config.min_free_bytes = u64::MAX).await;
    free_and_used(&rig, "nothing offered", |free, _| free == 0).await;
    let refused = command("true");
    rig.plane.assign(&refused);
    eventually("a rejection", || async { rig.plane.seen().rejected.pop() }).await;
    rig.finish().await;
}

#[tokio::test]
async fn images_that_were_pulled_here_make_room_and_no_others() {
    let rig_id = Rig::new().await.config.worker_id.clone();
    let (other, third) = (format!("ozma-test:b-{rig_id}"), format!("ozma-test:c-{rig_id}"));
    let id = docker(&["create", "--label", image::LABEL, image::busybox(), "true"], &[]);
    for name in [&other, &third] {
        docker(&["commit", "--message", name, &id, name], &[]);
    }
    docker(&["rm", &id], &[]);
    let registries = [&other, &third].map(|name| Registry::of(name));
    for name in [&other, &third] {
        image::remove(name);
    }
    // Three images that differ, since one that has a container by any name is left alone.
    let used = Registry::of(image::busybox()).image("used");
    let (unused, others) = (registries[0].image("unused"), registries[1].image("others"));
    docker(&["pull", "--quiet", &others], &[]);
    let rig = rig(|config| config.disk_limit_bytes = 20 * MIB).await;
    let with = |mut spec: RunSpec, image: &str| {
        spec.image = image.to_owned();
        spec
    };
    for image in [&unused, &others] {
        let spec = with(command("true"), image);
        rig.plane.assign(&spec);
        is_done(&rig, &spec).await;
    }
    let big = with(writer(40), &used);
    rig.plane.assign(&big);
    let there = |image: &str| image::exists(image);
    eventually("the unused image to go", || async { (!there(&unused)).then_some(()) }).await;
    free_and_used(&rig, "a full disk", |free, used| free == 0 && used > 20 * MIB).await;
    assert!(there(&used), "an image was taken from its run");
    go(&big);
    is_done(&rig, &big).await;
    free_and_used(&rig, "room", |free, _| free > 0).await;
    let others_there = there(&others);
    for image in [&used, &others] {
        image::remove(image);
    }
    assert!(others_there, "somebody else's image was removed");
    rig.finish().await;
}
