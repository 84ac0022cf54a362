//! One run from its assignment to the last trace of it.

use protocol::{
    event::{Event, EventSource, Phase},
    link::FromWorker,
    secret::Secret,
    spec::{Network, RunSpec},
};
use test_support::{
    image::{self, docker},
    wait::eventually,
};

use crate::rig::{Rig, SIDECAR_IMAGE, command, container};

/// Planted where it must not be seen.
const MARK: &str = "planted-secret-5f1c";

fn phases(rig: &Rig, spec: &RunSpec) -> Vec<(Phase, bool)> {
    let events = rig.plane.events(spec, EventSource::Worker).into_iter();
    events
        .filter_map(|event| match event {
            Event::PhaseFinished { phase, ok, .. } => Some((phase, ok)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_run_is_claimed_told_reported_and_removed() {
    let rig = Rig::docker().await;
    let mut spec =
        command("cat; echo; echo value $PLANTED; while [ ! -e /tmp/go ]; do sleep 0.05; done");
    spec.prompt = format!("'quotes' \"$HOME\"\nand {}", "x".repeat(100_000));
    spec.env.insert("PLANTED".to_owned(), Secret::new(MARK));
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, &format!("value {MARK}")).await;

    let inspected = docker(&["inspect", &container(&spec)], &[]);
    assert!(!inspected.contains(MARK), "a secret stands in the container's description");
    for hardening in ["no-new-privileges", "\"PidsLimit\": 2048", "\"Memory\": 134217728"] {
        assert!(inspected.contains(hardening), "{hardening} is missing: {inspected}");
    }
    for label in ["ozma.tenant", "ozma.run", "ozma.execution", "ozma.worker"] {
        assert!(inspected.contains(label), "{label} is missing");
    }
    eventually("both phases of the worker, while the run goes on", || async {
        (phases(&rig, &spec) == [(Phase::Image, true), (Phase::Container, true)]).then_some(())
    })
    .await;
    docker(&["exec", &container(&spec), "touch", "/tmp/go"], &[]);

    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskCompleted(done) = report else { panic!("{report:?}") };
    assert_eq!((done.exit_code, done.task_state), (Some(0), None));
    assert_eq!(rig.plane.seen().claimed, [spec.execution_id.clone()]);
    let said = rig.plane.output(&spec);
    assert!(said.contains(&spec.prompt), "the prompt did not arrive whole");

    let last = rig.plane.events(&spec, EventSource::Sidecar).pop();
    assert!(matches!(last, Some(Event::Exit(_))), "{last:?}");
    rig.finish().await;
}

#[tokio::test]
async fn a_watcher_sees_the_phases_one_after_the_other() {
    let rig = Rig::docker().await;
    let spec = command("true");
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    let mut open = None;
    for event in rig.plane.arrived(&spec) {
        match event {
            Event::PhaseStarted { phase } => {
                assert_eq!(open.replace(phase), None, "{phase:?} began within another");
            }
            Event::PhaseFinished { phase, .. } => assert_eq!(open.take(), Some(phase)),
            Event::Exit(_) => assert_eq!(open, None),
            _ => {}
        }
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_provider_has_no_privileges_and_no_way_to_the_worker() {
    let rig = Rig::docker().await;
    let mut spec = command(
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
         ls /run/ozma || echo closed; echo x >/agent/x || echo read-only; ls /var/run/docker.sock || echo none",
    );
    // More than any machine of tests has: not a reason to fail.
    spec.shape.cpu_millis = Some(4_000_000);
    rig.plane.assign(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    let said = rig.plane.output(&spec);
    for line in [
        "10001",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "closed",
        "read-only",
        "none",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is missing: {said}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_run_that_may_reach_out_has_a_network_of_its_own() {
    let rig = Rig::docker().await;
    let mut spec = command("ip route; while [ ! -e /tmp/go ]; do sleep 0.05; done");
    spec.network = Network::Open;
    rig.plane.assign(&spec);
    let network = container(&spec);
    eventually("a default route", || async {
        rig.plane
            .output(&spec)
            .lines()
            .any(|line| line.starts_with("default via 10.213."))
            .then_some(())
    })
    .await;
    let subnet = "{{(index .IPAM.Config 0).Subnet}}";
    let subnet = docker(&["network", "inspect", &network, "--format", subnet], &[]);
    assert!(subnet.starts_with("10.213.") && subnet.ends_with("/28"), "{subnet}");
    docker(&["exec", &container(&spec), "touch", "/tmp/go"], &[]);
    rig.plane.report(&spec).await;
    rig.finish().await;
}

#[tokio::test]
async fn what_does_not_fit_is_rejected_and_what_comes_twice_runs_once() {
    let mut rig = Rig::new().await;
    rig.config.capacity = 1;
    rig.start().await;
    let (first, second) = (command("echo up; sleep 300"), command("true"));
    rig.plane.assign(&first);
    rig.plane.assign(&first);
    rig.plane.assign(&second);
    eventually("a rejection", || async {
        let seen = rig.plane.seen();
        (seen.rejected.first()?.0 == second.execution_id).then_some(())
    })
    .await;
    assert_eq!(rig.plane.seen().rejected[0].1, "worker at maximum concurrency");
    rig.plane.output_line(&first, "up").await;
    assert_eq!(rig.plane.seen().claimed.len(), 1);
    rig.plane.cancel(&first);
    rig.plane.report(&first).await;

    // Its slot is free as soon as it is reported.
    rig.plane.assign(&second);
    rig.plane.report(&second).await;
    rig.finish().await;
}

#[tokio::test]
async fn ten_runs_at_once_and_every_line_of_them() {
    let mut rig = Rig::new().await;
    rig.config.capacity = 10;
    rig.start().await;
    let specs: Vec<_> = (0..10).map(|_| command("seq 1 2000")).collect();
    for spec in &specs {
        rig.plane.assign(spec);
    }
    for spec in &specs {
        rig.plane.report(spec).await;
        let output = rig.plane.output(spec);
        let expected: Vec<String> = (1..=2_000).map(|n| n.to_string()).collect();
        let said: Vec<&str> = output.split_whitespace().collect();
        assert_eq!(said, expected);
    }
    rig.finish().await;
}

#[tokio::test]
async fn an_empty_volume_in_the_sidecars_place_is_filled() {
    let mut rig = Rig::new().await;
    let image = format!("ozma-test:sidecar-{}", rig.config.worker_id.to_ascii_lowercase());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("unlike-any-other"), &image).unwrap();
    image::with_files(SIDECAR_IMAGE, folder.path(), &image);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image], &[]);
    let volume = format!("ozma-sidecar-{}", &id.trim_start_matches("sha256:")[..12]);
    docker(&["volume", "create", &volume], &[]);

    rig.config.sidecar_image.clone_from(&image);
    rig.start().await;
    let spec = command("true");
    rig.plane.assign(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    rig.finish().await;
    docker(&["volume", "rm", &volume], &[]);
    image::remove(&image);
}
