//! A worker that is killed at any moment and comes back: nothing is lost, nothing is doubled.

use protocol::{event::Event, failure::FailureReason, link::FromWorker, spec::RunSpec};
use service::clock::Clock;
use test_support::{image::docker, silence::Silence, wait::eventually};

use crate::{
    plane::Withheld,
    rig::{Rig, command, container},
};

/// Prints the numbers up to this one, a little apart.
const LAST: u32 = 60;

pub(crate) fn counting() -> String {
    format!("for n in $(seq 1 {LAST}); do echo n $n; sleep 0.05; done")
}

pub(crate) fn assert_counted(output: &str) {
    let said: Vec<&str> = output.lines().collect();
    let expected: Vec<String> = (1..=LAST).map(|n| format!("n {n}")).collect();
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_killed_worker_takes_its_runs_up_again() {
    let mut rig = Rig::docker().await;
    let spec = command(&counting());
    rig.plane.assign(&spec);
    for line in ["n 5", "n 20"] {
        rig.plane.output_line(&spec, line).await;
        rig.kill();
        rig.start().await;
    }
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_counted(&rig.plane.output(&spec));
    assert_eq!(rig.plane.seen().hellos[2].executions.len(), 1);
    assert_eq!(rig.plane.seen().claimed.len(), 1);
    rig.finish().await;
}

/// Kinds of a run's events in the order in which a watcher sees them, but for the output's.
fn told(rig: &Rig, spec: &RunSpec) -> Vec<String> {
    let is_output = |event: &Event| matches!(event, Event::Output { .. });
    let events = rig.plane.arrived(spec).into_iter().filter(|event| !is_output(event));
    let plain = |event| match event {
        Event::PhaseFinished { phase, ok, .. } => format!("{phase:?} finished {ok}"),
        Event::Exit(exit) => format!("exit {:?}", exit.exit_code),
        other => format!("{other:?}"),
    };
    events.map(plain).collect()
}

#[tokio::test]
async fn what_a_worker_said_itself_outlives_it() {
    let mut rig = Rig::docker().await;
    let undisturbed = command(&counting());
    rig.plane.assign(&undisturbed);
    rig.plane.report(&undisturbed).await;

    // Nothing that is said is acknowledged, so all of it is to come again from each life.
    rig.plane.withhold(Withheld { acks: true, ..Withheld::default() });
    let spec = command(&counting());
    rig.plane.assign(&spec);
    for line in ["n 3", "n 12", "n 30"] {
        rig.plane.output_line(&spec, line).await;
        rig.kill();
        let gone = || rig.plane.seen().connected == 0;
        eventually("the connection's end", || async { gone().then_some(()) }).await;
        rig.plane.forget(&spec);
        rig.start().await;
    }
    rig.plane.withhold(Withheld::default());
    rig.plane.report(&spec).await;
    assert_counted(&rig.plane.output(&spec));
    assert_eq!(told(&rig, &spec), told(&rig, &undisturbed));
    rig.finish().await;
}

#[tokio::test]
async fn a_phase_that_a_worker_died_in_is_ended_by_its_next_life() {
    let mut rig = Rig::docker().await;
    let registry = Silence::start_on("127.0.0.1:0").await;
    let mut spec = command("true");
    spec.image = format!("{}/never:1", registry.addr());
    rig.plane.assign(&spec);
    eventually("the pull", || async { (registry.accepted() > 0).then_some(()) }).await;
    rig.kill();
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(failed.failure_reason, Some(FailureReason::WorkerLost));
    assert_eq!(told(&rig, &spec), ["PhaseStarted { phase: Image }", "Image finished false"]);
    rig.finish().await;
}

#[tokio::test]
async fn a_clock_that_is_set_ends_no_run_and_keeps_none_alive() {
    const DAY_MS: i64 = 86_400_000;
    for (run_secs, days, reason) in
        [(600, 1, None), (600, -1, None), (3, -1, Some(FailureReason::TaskTimeout))]
    {
        let mut rig = Rig::new().await;
        let now_ms = Clock::system().now_ms();
        rig.clock = Clock::by_hand(now_ms);
        rig.config.grace_ms = 500;
        rig.start().await;
        let mut spec = command("echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done");
        spec.timeouts.run_secs = run_secs;
        rig.plane.assign(&spec);
        rig.plane.output_line(&spec, "up").await;
        // Under a worker that runs, and between two of them.
        rig.clock.jump(days * DAY_MS / 2);
        rig.kill();
        rig.clock = Clock::by_hand(now_ms + days * DAY_MS);
        rig.start().await;
        if reason.is_none() {
            docker(&["exec", &container(&spec), "touch", "/tmp/go"], &[]);
        }
        let report = rig.plane.report(&spec).await;
        let ended = match report {
            FromWorker::TaskFailed(failed) => failed.failure_reason,
            _ => None,
        };
        assert_eq!(ended, reason, "{days} days");
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_run_that_ended_meanwhile_is_read_from_its_journal() {
    let mut rig = Rig::docker().await;
    let spec = command(
        "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; touch /tmp/said; sleep 300",
    );
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "one").await;
    rig.kill();
    let said = "touch /tmp/go; while [ ! -e /tmp/said ]; do sleep 0.02; done";
    docker(&["exec", &container(&spec), "sh", "-c", said], &[]);
    // The line is in the journal once it was read from the pipe.
    let read = "while ! grep -q two /ozma/journal.jsonl; do sleep 0.02; done";
    docker(&["exec", &container(&spec), "sh", "-c", read], &[]);
    docker(&["kill", &container(&spec)], &[]);
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(failed.failure_reason, Some(FailureReason::ContainerExit));
    assert_eq!(rig.plane.output(&spec), "one\ntwo\n");
    rig.finish().await;
}

#[tokio::test]
async fn an_unacknowledged_end_is_told_again_after_a_restart() {
    let mut rig = Rig::docker().await;
    rig.plane.withhold(Withheld { report_acks: true, ..Withheld::default() });
    let spec = command(&counting());
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    rig.kill();
    rig.plane.seen().reports.clear();
    rig.plane.withhold(Withheld::default());
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskCompleted(done) = report else { panic!("{report:?}") };
    assert_eq!(done.exit_code, Some(0));
    assert_counted(&rig.plane.output(&spec));
    rig.finish().await;
}

#[tokio::test]
async fn what_the_plane_never_heard_is_in_the_journal_of_an_ended_run() {
    let mut rig = Rig::docker().await;
    // Nothing is acknowledged, so the sidecar's journal keeps it all.
    rig.plane.withhold(Withheld { acks: true, report_acks: true, entry: false });
    let spec = command(&counting());
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    rig.kill();
    rig.plane.forget(&spec);
    rig.plane.withhold(Withheld::default());
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_counted(&rig.plane.output(&spec));
    rig.finish().await;
}

#[tokio::test]
async fn a_run_superseded_meanwhile_is_removed() {
    let mut rig = Rig::docker().await;
    let spec = command("echo up; sleep 300");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    rig.kill();
    rig.plane.supersede(&spec);
    rig.start().await;
    eventually("its folder to go", || async { (rig.homes() == 0).then_some(()) }).await;
    assert!(rig.plane.seen().reports.is_empty());
    rig.finish().await;
}

#[tokio::test]
async fn what_nobody_owns_is_swept() {
    let mut rig = Rig::new().await;
    let spec = command("true");
    let worker = format!("ozma.worker={}", rig.config.worker_id);
    let execution = format!("ozma.execution={}", spec.execution_id);
    let name = container(&spec);
    let labels = ["--label", &worker, "--label", &execution];
    docker(
        &[&["network", "create"], &labels[..], &["--subnet", "10.214.7.0/28", &name]].concat(),
        &[],
    );
    docker(
        &[
            &["run", "--detach", "--network", &name, "--name", &name],
            &labels[..],
            &[&spec.image, "sleep", "300"],
        ]
        .concat(),
        &[],
    );
    rig.start().await;
    rig.finish().await;
}

#[tokio::test]
async fn two_workers_do_not_share_a_folder() {
    let mut rig = Rig::docker().await;
    let first = rig.take_worker();
    rig.launch();
    let error = rig.ended().await.unwrap_err();
    assert!(error.contains("in use by another worker"), "{error}");
    rig.kill();
    rig.put_worker(first);
    rig.finish().await;
}
