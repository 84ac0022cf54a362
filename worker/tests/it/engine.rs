//! A container engine that goes away and comes back under running executions: the worker lives on, takes nothing
//! meanwhile, and every run comes to an end that is told by its name.

use protocol::{
    event::{Event, EventSource},
    failure::FailureReason,
    link::FromWorker,
    spec::RunSpec,
};
use test_support::{
    engine::{Engine, Restore},
    wait::eventually,
};
use worker::config::Link;

use crate::{
    restart::{assert_counted, counting},
    rig::{Rig, SIDECAR_IMAGE, command, container},
};

async fn rig_on(engine: &Engine, link: Link) -> Rig {
    let mut rig = Rig::new().await;
    rig.config.docker_host = Some(engine.host());
    rig.config.link = link;
    rig.start().await;
    rig
}

/// Waits for heartbeats that offer something, or nothing.
async fn offers(rig: &Rig, some: bool) {
    eventually(if some { "an offer" } else { "no offer" }, || async {
        let seen = rig.plane.seen();
        seen.heartbeat.as_ref().is_some_and(|beat| (beat.free > 0) == some).then_some(())
    })
    .await;
}

fn assert_completed(report: &FromWorker) {
    assert!(
        matches!(report, FromWorker::TaskCompleted(done) if done.exit_code == Some(0)),
        "{report:?}"
    );
}

fn assert_one_exit(rig: &Rig, spec: &RunSpec) {
    let events = rig.plane.events(spec, EventSource::Sidecar);
    let exits = events.iter().filter(|event| matches!(event, Event::Exit(_))).count();
    assert_eq!(exits, 1, "{events:?}");
    assert!(matches!(events.last(), Some(Event::Exit(_))), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_on_under_a_daemon_that_is_killed_and_restored() {
    for link in [Link::Socket, Link::Stdio] {
        let mut engine = Engine::start(Restore::Live, &[SIDECAR_IMAGE]);
        let rig = rig_on(&engine, link).await;
        let spec = command(&counting());
        rig.plane.assign(&spec);
        rig.plane.output_line(&spec, "n 5").await;
        engine.kill();
        offers(&rig, false).await;

        let refused = command("true");
        rig.plane.assign(&refused);
        let (id, why) =
            eventually("a rejection", || async { rig.plane.seen().rejected.pop() }).await;
        assert_eq!(id, refused.execution_id);
        assert!(why.contains("engine"), "{why}");

        engine.start_again();
        offers(&rig, true).await;
        assert_completed(&rig.plane.report(&spec).await);
        assert_counted(&rig.plane.output(&spec));
        assert_one_exit(&rig, &spec);
        assert_eq!(rig.plane.seen().claimed.len(), 1);
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_while_the_daemon_is_away_is_told_and_removed() {
    let mut engine = Engine::start(Restore::Live, &[SIDECAR_IMAGE]);
    let rig = rig_on(&engine, Link::Socket).await;
    let spec = command("echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    engine.docker(&["exec", "--detach", &container(&spec), "sh", "-c", "sleep 1; touch /tmp/go"]);
    engine.kill();
    assert_completed(&rig.plane.report(&spec).await);
    assert_eq!(rig.plane.output(&spec), "up\ndone\n");
    engine.start_again();
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_stops_its_containers_hands_their_runs_back() {
    for (link, kill) in [(Link::Socket, false), (Link::Socket, true), (Link::Stdio, false)] {
        let mut engine = Engine::start(Restore::None, &[SIDECAR_IMAGE]);
        let rig = rig_on(&engine, link).await;
        let spec = command("echo up; sleep 300");
        rig.plane.assign(&spec);
        rig.plane.output_line(&spec, "up").await;
        if kill {
            // What goes on meanwhile is stopped by the next daemon.
            engine.kill();
        } else {
            engine.stop();
        }
        engine.start_again();
        let report = rig.plane.report(&spec).await;
        let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
        let reason = failed.failure_reason.unwrap();
        assert_eq!(reason, FailureReason::GracefulShutdown, "{link:?} {kill} {failed:?}");
        assert!(reason.retryable());
        assert_one_exit(&rig, &spec);

        // The same worker goes on with the engine.
        offers(&rig, true).await;
        let next = command("echo next");
        rig.plane.assign(&next);
        assert_completed(&rig.plane.report(&next).await);
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_a_dying_daemon_breaks_off_are_told_and_leave_nothing() {
    let mut engine = Engine::start(Restore::Live, &[SIDECAR_IMAGE]);
    let mut rig = Rig::new().await;
    rig.config.docker_host = Some(engine.host());
    rig.config.capacity = 16;
    rig.start().await;
    for _ in 0..3 {
        let runs: Vec<_> = (0..6).map(|_| command("echo said")).collect();
        for spec in &runs {
            rig.plane.assign(spec);
        }
        eventually("the first claim", || async {
            let seen = rig.plane.seen();
            runs.iter().any(|spec| seen.claimed.contains(&spec.execution_id)).then_some(())
        })
        .await;
        engine.kill();
        engine.start_again();
        for spec in &runs {
            let id = &spec.execution_id;
            let ended = eventually("an end of each", || async {
                let seen = rig.plane.seen();
                let rejected = seen.rejected.iter().any(|(rejected, _)| rejected == id);
                seen.reports.get(id).cloned().map(Some).or(rejected.then_some(None))
            })
            .await;
            match ended {
                None => {}
                Some(FromWorker::TaskCompleted(done)) => {
                    assert_eq!(done.exit_code, Some(0));
                    assert_eq!(rig.plane.output(spec), "said\n");
                }
                Some(FromWorker::TaskFailed(failed)) => {
                    let reason = failed.failure_reason.unwrap();
                    assert!(reason.retryable(), "{failed:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        offers(&rig, true).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_and_daemon_may_die_together() {
    let mut engine = Engine::start(Restore::Live, &[SIDECAR_IMAGE]);
    let mut rig = rig_on(&engine, Link::Socket).await;
    let spec = command(&counting());
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "n 5").await;
    rig.kill();
    engine.kill();
    engine.start_again();
    rig.start().await;
    assert_completed(&rig.plane.report(&spec).await);
    assert_counted(&rig.plane.output(&spec));
    rig.finish().await;
}
