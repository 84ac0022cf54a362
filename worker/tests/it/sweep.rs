//! What no execution owns any more is found and removed; what is another worker's, or alive, never.

use std::path::Path;

use protocol::link::{FromWorker, Hello};
use test_support::{
    image::{self, docker},
    wait::eventually,
};

use crate::rig::{Rig, command, container};

/// Everything an execution can leave, without an execution: container, network, volume, folder.
struct Orphan(String);

impl Orphan {
    fn of(worker: &str, number: u32, folder: Option<&Path>) -> Self {
        let spec = command("true");
        let name = container(&spec);
        let (worker, execution) =
            (format!("ozma.worker={worker}"), format!("ozma.execution={}", spec.execution_id));
        let labels = ["--label", image::LABEL, "--label", &worker, "--label", &execution];
        // Apart from each other: each may be swept before the next is made.
        let made = ["create", "--network", "none", "--name", &name];
        docker(&[&made[..], &labels, &[&spec.image, "sleep", "300"]].concat(), &[]);
        let subnet = format!("10.214.{number}.0/28");
        let network = [&["network", "create", "--subnet", &subnet], &labels[..], &[&name]];
        docker(&network.concat(), &[]);
        docker(&[&["volume", "create"], &labels[..], &[&name]].concat(), &[]);
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder.join(spec.execution_id.as_str()).join("sock")).unwrap();
        }
        Self(name)
    }

    /// How much of it is there.
    fn left(&self) -> usize {
        let filter = format!("name={}", self.0);
        let lists: [&[&str]; 3] = [&["ps", "--all"], &["network", "ls"], &["volume", "ls"]];
        let list = |what: &[&str]| {
            docker(&[what, &["--quiet", "--filter", &filter]].concat(), &[]).lines().count()
        };
        lists.into_iter().map(list).sum()
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        for kind in ["container", "network", "volume"] {
            let mut remove = std::process::Command::new("docker");
            let _ = remove.args([kind, "rm", "--force", &self.0]).output();
        }
    }
}

#[tokio::test]
async fn orphans_go_at_the_start_and_later_and_nothing_else_does() {
    let mut rig = Rig::new().await;
    rig.config.sweep_ms = 200;
    let worker = rig.config.worker_id.clone();
    std::fs::create_dir_all(&rig.config.state_dir).unwrap();
    let somebodys = rig.config.state_dir.join("somebodys");
    std::fs::create_dir(&somebodys).unwrap();
    std::fs::write(somebodys.join("thesis.tex"), "").unwrap();
    let others = Orphan::of(&format!("{worker}-2"), 1, None);
    let early = Orphan::of(&worker, 2, Some(&rig.config.state_dir));
    docker(&["start", &early.0], &[]);
    rig.start().await;
    eventually("the first to go", || async { (early.left() == 0).then_some(()) }).await;

    let alive = command("echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done");
    rig.plane.assign(&alive);
    rig.plane.output_line(&alive, "up").await;
    let late = Orphan::of(&worker, 3, Some(&rig.config.state_dir));
    eventually("the later one to go", || async { (late.left() == 0).then_some(()) }).await;
    eventually("its folder to go", || async { (rig.homes() == 2).then_some(()) }).await;

    docker(&["exec", &container(&alive), "touch", "/tmp/go"], &[]);
    let report = rig.plane.report(&alive).await;
    let others_left = others.left();
    assert_eq!(others_left, 3, "another worker's was removed");
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert!(somebodys.join("thesis.tex").exists(), "somebody's folder was removed");
    std::fs::remove_dir_all(&somebodys).unwrap();
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_started_is_no_orphan() {
    let mut rig = Rig::new().await;
    rig.config.sweep_ms = 100;
    rig.config.capacity = 8;
    rig.start().await;
    for _ in 0..3 {
        let runs: Vec<_> = (0..8).map(|_| command("echo said")).collect();
        for spec in &runs {
            rig.plane.assign(spec);
        }
        for spec in &runs {
            let report = rig.plane.report(spec).await;
            assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
        }
        // A place is free once what is left was removed.
        eventually("every place", || async { (rig.homes() == 0).then_some(()) }).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_point_of_a_start_leaves_nothing() {
    let mut rig = Rig::new().await;
    rig.config.sweep_ms = 200;
    rig.start().await;
    for (step, delay_ms) in [1, 20, 40, 70, 110, 160, 220].into_iter().enumerate() {
        let spec = command("echo said");
        rig.plane.assign(&spec);
        let claimed = |count| rig.plane.seen().claimed.len() > count;
        eventually("the claim", || async { claimed(step).then_some(()) }).await;
        // Not waited for anything: each time another point is met.
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        rig.kill();
        let hellos = rig.plane.seen().hellos.len();
        rig.start().await;
        let outcome = eventually("its report, or a hello without it", || async {
            let seen = rig.plane.seen();
            let report = seen.reports.get(&spec.execution_id).cloned();
            let knows = |hello: &Hello| {
                hello.executions.iter().any(|running| running.execution_id == spec.execution_id)
            };
            // Claimed, and killed before it was written down: the plane takes it for lost.
            let unknown = seen.hellos.get(hellos).is_some_and(|hello| !knows(hello));
            report.map(Some).or_else(|| unknown.then_some(None))
        })
        .await;
        if let Some(FromWorker::TaskFailed(failed)) = &outcome {
            assert!(failed.failure_reason.unwrap().retryable(), "{failed:?}");
        }
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_volume_that_an_image_asks_for_goes_with_its_run() {
    let rig = Rig::docker().await;
    let name = format!("ozma-test:volume-{}", rig.config.worker_id);
    let made = docker(&["create", "--label", image::LABEL, image::busybox(), "true"], &[]);
    docker(
        &["commit", "--change", "VOLUME /data", "--change", "VOLUME /agent/", &made, &name],
        &[],
    );
    docker(&["rm", &made], &[]);

    let mut spec = command("echo $(mount | grep -c ' /data '); while :; do sleep 0.05; done");
    spec.image.clone_from(&name);
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "1").await;
    let filter = format!("label=ozma.execution={}", spec.execution_id);
    let volumes = || docker(&["volume", "ls", "--quiet", "--filter", &filter], &[]);
    assert_eq!(volumes().lines().count(), 1);
    rig.plane.cancel(&spec);
    rig.plane.report(&spec).await;
    eventually("the volume to go", || async { volumes().is_empty().then_some(()) }).await;
    rig.finish().await;
    image::remove(&name);
}
