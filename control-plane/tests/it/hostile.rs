//! Workers and containers that break the rules: what they send costs a bounded amount, and no other worker's or
//! tenant's run is touched by it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use control_plane::{
    core::Core,
    environments, reaper,
    runs::{self, NewRun, RunFilter},
    store::{Recorded, Report},
};
use protocol::{
    event::{Artifact, Event, EventSource},
    failure::FailureReason,
    limits::MAX_FRAME_BYTES,
    link::{FromWorker, ToWorker},
    run::RunState,
};
use sha2::{Digest, Sha256};
use test_support::{
    wait::{eventually, in_time},
    worker::{FakeWorker, hello, numbered, running},
};

use crate::{
    base::{Db, admin, new_environment, on_both, prompt, reached, submit, tenant},
    step::{LEASE, ingest, kinds, output, report, state, with_run, worker},
};

on_both!(
    a_wish_to_stop_outlives_the_sidecars_first_word,
    a_worker_that_speaks_of_a_run_has_it,
    a_worker_cannot_speak_for_another,
    content_that_is_not_what_was_promised_is_thrown_away,
    an_artifact_that_says_too_much_is_left_out,
    an_assignment_no_frame_holds_fails,
    listings_have_a_weight,
    a_worker_that_never_stops_is_given_up,
    a_run_that_never_ends_is_given_up,
    a_hello_that_comes_late_is_asked_to_come_again,
    a_title_draws_nothing_on_a_terminal,
);

async fn a_wish_to_stop_outlives_the_sidecars_first_word(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    runs::cancel(&core, &tenant('a'), &run.run_id).await.unwrap();
    // The sidecar was starting while its worker was told to stop it.
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &[output("hi")])).await;
    let seen = runs::get(&core, &tenant('a'), &run.run_id).await.unwrap();
    assert_eq!((seen.state, seen.cancelling), (RunState::Inprogress, true));
    let message = "stopped".to_owned();
    let stopped = Report::Stopped { message, exit_code: None, peak_memory_bytes: None };
    let recorded = report(&core, &run, stopped).await;
    assert!(matches!(recorded, Recorded::Applied { state: RunState::Cancelled, .. }));
}

async fn a_worker_that_speaks_of_a_run_has_it(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 2).await;
    // Else its heartbeats would keep a run waiting for an answer that never comes, and nobody could stop it.
    let beating = submit(&plane.core, &tenant('a'), "heartbeats only").await;
    let assigned = worker.next_assignment().await;
    worker.heartbeat(std::slice::from_ref(&assigned.execution_id), 1).await;
    reached(&plane.core, &beating, RunState::Claimed).await;
    let speaking = submit(&plane.core, &tenant('a'), "events only").await;
    let assigned = worker.next_assignment().await;
    let pulled = numbered(1, &[Event::Notice { text: "pulled".to_owned() }]);
    worker.send_events(&assigned.execution_id, EventSource::Worker, pulled).await;
    reached(&plane.core, &speaking, RunState::Claimed).await;
    plane.stop().await;
}

async fn a_worker_cannot_speak_for_another(db: Db) {
    let plane = db.plane().await;
    let honest = hello(1);
    let mut first = FakeWorker::connect_with(&plane.url(), "unused", "w1", honest.clone()).await;
    submit(&plane.core, &tenant('a'), "do it").await;
    let run = first.next_assignment().await;
    let id = &run.execution_id;
    first.claim(&run).await;
    reached(&plane.core, &run.task_id, RunState::Claimed).await;

    // The other's process and the other's execution, under its own name.
    for executions in [Vec::new(), vec![running(&run)]] {
        let forged = protocol::link::Hello { executions, capacity: 0, ..honest.clone() };
        let other = FakeWorker::connect_with(&plane.url(), "unused", "w2", forged).await;
        assert!(other.verdict(id).is_none_or(|verdict| !verdict.keep));
    }
    let mut second = plane.worker("w2", 0).await;
    second.send_events(id, EventSource::Sidecar, numbered(1, &[output("forged")])).await;
    let told = second.next().await;
    assert!(matches!(&told, ToWorker::Stop(stop) if stop.execution_id == *id), "{told:?}");
    second.complete(&run).await;
    let told = second.next().await;
    assert!(matches!(&told, ToWorker::Stop(stop) if stop.execution_id == *id), "{told:?}");

    first.send_events(id, EventSource::Sidecar, numbered(1, &[output("true")])).await;
    first.acked(id, EventSource::Sidecar, 1).await;
    first.complete(&run).await;
    first.report_acked(id).await;
    reached(&plane.core, &run.task_id, RunState::Succeeded).await;
    second.heartbeat(std::slice::from_ref(id), 0).await;
    let told = second.next().await;
    assert!(matches!(&told, ToWorker::Stop(stop) if stop.execution_id == *id), "{told:?}");
    plane.stop().await;
}

fn part(uid: &str, index: u32, content: &[u8]) -> Event {
    Event::ArtifactPart {
        artifact_uid: uid.parse().unwrap(),
        index,
        base64: STANDARD.encode(content),
    }
}

fn file(uid: &str, content: &[u8]) -> Artifact {
    Artifact {
        artifact_uid: uid.parse().unwrap(),
        artifact_type: "FILE".to_owned(),
        filename: Some("a".to_owned()),
        filepath: None,
        mime_type: None,
        description: None,
        size_bytes: Some(content.len() as u64),
        sha256: Some(hex::encode(Sha256::digest(content))),
        url: None,
        branch: None,
    }
}

async fn content_that_is_not_what_was_promised_is_thrown_away(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    // Kept, it would be read again for each further promise, in the only transaction that writes.
    let events = [
        part("u", 0, b"hello"),
        Event::Artifact(file("u", b"other")),
        Event::Artifact(file("u", b"hello")),
    ];
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    assert!(runs::artifacts(&core, &admin(), &run.run_id).await.unwrap().is_empty());
    let notices = kinds(&core, &run.run_id).await;
    assert_eq!(notices.iter().filter(|kind| *kind == "notice").count(), 2);
}

async fn an_artifact_that_says_too_much_is_left_out(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    let long = Artifact { description: Some("x".repeat(20_000)), ..file("u", b"") };
    let named = Artifact { filename: Some("é".repeat(20_000)), ..file("v", b"") };
    let events = [Event::Artifact(long), Event::Artifact(named), Event::Artifact(file("w", b""))];
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    let kept = runs::artifacts(&core, &admin(), &run.run_id).await.unwrap();
    assert_eq!(kept.len(), 1);
    let page = control_plane::feed::events_page(&core, &admin(), &run.run_id, 0, 100).await;
    assert!(page.unwrap().events.iter().all(|event| event.data.get().len() < 1_000));
}

/// Parts without content are rows all the same.
#[tokio::test]
async fn parts_have_a_bound_in_number() {
    const MOST: u64 = (64 << 20) / (4 << 10) + 1_000;
    let db = Db::sqlite();
    let (core, run) = with_run(&db, RunState::Claimed).await;
    let mut events: Vec<_> = (0..MOST).map(|n| part(&format!("u{n}"), 0, b"")).collect();
    events.extend([part("late", 0, b"x"), Event::Artifact(file("late", b"x"))]);
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    assert!(runs::artifacts(&core, &admin(), &run.run_id).await.unwrap().is_empty());
}

async fn an_assignment_no_frame_holds_fails(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    let long = submit(&plane.core, &tenant('a'), &"\u{1}".repeat(MAX_FRAME_BYTES / 6)).await;
    let seen = reached(&plane.core, &long, RunState::Failed).await;
    assert_eq!((seen.attempt, seen.reason), (1, Some(FailureReason::AgentInvocation)));
    let next = submit(&plane.core, &tenant('a'), "do it").await;
    assert_eq!(worker.next_assignment().await.task_id, next);
    plane.stop().await;
}

async fn listings_have_a_weight(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    for _ in 0..3 {
        let config = format!("{{\"base_prompt\":{:?}}}", "x".repeat(5 << 20));
        let new = NewRun { config, ..prompt("do it") };
        runs::submit(&core, &ann, new).await.unwrap();
    }
    let page = runs::list(&core, &ann, &RunFilter::default(), 500, None).await.unwrap();
    assert_eq!((page.runs.len(), page.next_cursor.is_some()), (1, true));

    for name in ["one", "two", "three", "four"] {
        let mut new = new_environment(name, &[]);
        new.spec.setup_commands = vec!["x".repeat(12 << 20)];
        environments::create(&core, &ann, new).await.unwrap();
    }
    assert_eq!(environments::list(&core, &ann).await.unwrap().len(), 3);
}

async fn a_worker_that_never_stops_is_given_up(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    runs::cancel(&core, &tenant('a'), &run.run_id).await.unwrap();
    let renewed = async |core: &Core| {
        let (worker, until) = (worker(), core.now() + LEASE);
        let ids = std::slice::from_ref(&run.execution_id);
        assert_eq!(core.store.renew(&worker, ids, until).await.unwrap().len(), 1);
        reaper::pass(core).await.unwrap();
    };
    core.clock.advance(Duration::from_mins(9));
    renewed(&core).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);
    core.clock.advance(Duration::from_mins(2));
    renewed(&core).await;
    assert_eq!(state(&core, &run.run_id).await, RunState::Cancelled);
}

async fn a_run_that_never_ends_is_given_up(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    core.clock.advance(Duration::from_hours(9 * 24));
    let ids = std::slice::from_ref(&run.execution_id);
    core.store.renew(&worker(), ids, core.now() + LEASE).await.unwrap();
    reaper::pass(&core).await.unwrap();
    let seen = runs::get(&core, &admin(), &run.run_id).await.unwrap();
    assert_eq!((seen.state, seen.reason), (RunState::Failed, Some(FailureReason::TaskTimeout)));
}

async fn a_hello_that_comes_late_is_asked_to_come_again(db: Db) {
    let plane = db.plane().await;
    let mut worker = FakeWorker::connect_stock(&plane.url(), "unused", "w1").await;
    eventually("it is taken for a stock worker", async || {
        (plane.core.workers.len() == 1).then_some(())
    })
    .await;
    worker.send(&FromWorker::Hello(hello(1))).await;
    assert!(in_time("the end of the connection", worker.try_next()).await.is_none());
    plane.stop().await;
}

async fn a_title_draws_nothing_on_a_terminal(db: Db) {
    let core = db.core().await;
    for new in [
        NewRun { title: Some("a\u{1b}[2J\nb".to_owned()), ..prompt("do it") },
        prompt("a\u{1b}[2J\u{9b}b"),
    ] {
        let id = runs::submit(&core, &tenant('a'), new).await.unwrap().run_id;
        let title = runs::get(&core, &admin(), &id).await.unwrap().title;
        assert!(title.starts_with("a ") && !title.contains(char::is_control), "{title:?}");
    }
}
