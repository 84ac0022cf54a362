//! The link over real sockets: what survives a lost frame, a lost connection, a lost worker, a second plane.

use std::time::Duration;

use control_plane::{
    core::Settings,
    feed,
    runs::{self, CancelError},
};
use protocol::{
    event::{Event, EventSource},
    failure::FailureReason,
    ids::RunId,
    link::{Hello, TaskAssignment, ToWorker},
    run::RunState,
};
use service::clock::Clock;
use test_support::{
    wait::{eventually, in_time},
    worker::{FakeWorker, hello, numbered, running},
};

use crate::base::{Db, Plane, START, admin, claimed, on_both, reached, settings, submit, tenant};

on_both!(
    a_run_from_claim_to_end,
    events_are_acknowledged_doubled_and_missing,
    a_worker_that_comes_back_goes_on,
    what_a_worker_lost_is_tried_again,
    an_unanswered_assignment_is_handed_out_again,
    a_silent_worker_loses_its_lease_and_its_word,
    heartbeats_keep_a_lease,
    a_plane_that_just_started_reaps_nothing,
    a_cancel_reaches_the_worker,
    a_rejected_run_is_offered_again,
);

fn notices(first: u64, count: u64) -> Vec<protocol::event::EventLine> {
    let events: Vec<_> =
        (first..first + count).map(|n| Event::Notice { text: n.to_string() }).collect();
    numbered(first, &events)
}

async fn stored_notices(plane: &Plane, id: &RunId) -> Vec<String> {
    let page = feed::events_page(&plane.core, &admin(), id, 0, 1_000).await.unwrap();
    let notices = page.events.iter().filter(|event| event.kind == "notice");
    notices.map(|event| event.data.get().to_owned()).collect()
}

async fn stopped(worker: &mut FakeWorker, assignment: &TaskAssignment) {
    worker
        .next_where(|frame| match frame {
            ToWorker::Stop(stop) => (stop.execution_id == assignment.execution_id).then_some(()),
            _ => None,
        })
        .await;
}

async fn a_run_from_claim_to_end(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    let run = claimed(&plane, &mut worker).await;
    let id = &run.execution_id;
    worker.send_events(id, EventSource::Worker, notices(1, 1)).await;
    worker.acked(id, EventSource::Worker, 1).await;
    worker.send_events(id, EventSource::Sidecar, notices(1, 3)).await;
    worker.acked(id, EventSource::Sidecar, 3).await;
    reached(&plane.core, &run.task_id, RunState::Inprogress).await;
    worker.complete(&run).await;
    worker.report_acked(id).await;
    reached(&plane.core, &run.task_id, RunState::Succeeded).await;
    // Its acknowledgement was lost, the worker believes.
    worker.complete(&run).await;
    worker.report_acked(id).await;
    worker.heartbeat(std::slice::from_ref(id), 0).await;
    worker.report_acked(id).await;
    assert_eq!(plane.core.counters.superseded.get(), 0);
    plane.stop().await;
}

async fn events_are_acknowledged_doubled_and_missing(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    let run = claimed(&plane, &mut worker).await;
    let (id, sidecar) = (&run.execution_id, EventSource::Sidecar);
    worker.send_events(id, sidecar, notices(1, 2)).await;
    worker.acked(id, sidecar, 2).await;
    worker.send_events(id, sidecar, notices(1, 2)).await;
    worker.acked(id, sidecar, 2).await;
    // Numbers 3 and 4 are missing: the plane says what it holds.
    worker.send_events(id, sidecar, notices(5, 2)).await;
    worker.acked(id, sidecar, 2).await;
    worker.send_events(id, sidecar, notices(2, 5)).await;
    worker.acked(id, sidecar, 6).await;
    // More than a frame should hold is taken all the same.
    worker.send_events(id, sidecar, notices(7, 600)).await;
    worker.acked(id, sidecar, 606).await;
    assert_eq!(stored_notices(&plane, &run.task_id).await.len(), 606);
    assert_eq!(plane.core.counters.event_gaps.get(), 1);
    assert_eq!(plane.core.counters.events_repeated.get(), 3);
    plane.stop().await;
}

async fn a_worker_that_comes_back_goes_on(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    let run = claimed(&plane, &mut worker).await;
    worker.send_events(&run.execution_id, EventSource::Sidecar, notices(1, 2)).await;
    worker.acked(&run.execution_id, EventSource::Sidecar, 2).await;
    drop(worker);

    // Its process was restarted: another instance, the same container.
    let again = Hello { executions: vec![running(&run)], ..hello(1) };
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", again).await;
    let verdict = worker.verdict(&run.execution_id).unwrap();
    assert_eq!((verdict.keep, verdict.sidecar_seq, verdict.worker_seq), (true, 2, 0));
    worker.send_events(&run.execution_id, EventSource::Sidecar, notices(3, 1)).await;
    worker.acked(&run.execution_id, EventSource::Sidecar, 3).await;
    worker.complete(&run).await;
    worker.report_acked(&run.execution_id).await;
    assert_eq!(stored_notices(&plane, &run.task_id).await.len(), 3);

    // Now it is over, and another worker's it never was.
    let over = Hello { executions: vec![running(&run)], ..hello(1) };
    let worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", over).await;
    assert!(!worker.verdict(&run.execution_id).unwrap().keep);
    plane.stop().await;
}

async fn what_a_worker_lost_is_tried_again(db: Db) {
    let plane = db.plane().await;
    let first = hello(2);
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", first.clone()).await;
    let held = claimed(&plane, &mut worker).await;
    let unheard = submit(&plane.core, &tenant('a'), "on the wire").await;
    reached(&plane.core, &unheard, RunState::Pending).await;
    drop(worker);
    // The same process dials again and holds neither: one was never heard of, the other is lost.
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", first).await;
    let again = [worker.next_assignment().await, worker.next_assignment().await];
    let attempt = |id: &RunId| {
        let assignment = again.iter().find(|assignment| assignment.task_id == *id).unwrap();
        assignment.spec.as_ref().unwrap().attempt
    };
    assert_eq!((attempt(&held.task_id), attempt(&unheard)), (2, 1));
    plane.stop().await;
}

async fn an_unanswered_assignment_is_handed_out_again(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut mute = plane.worker("w1", 1).await;
    submit(&plane.core, &tenant('a'), "x").await;
    let first = mute.next_assignment().await;
    plane.pass_time(&clock, 29).await;
    reached(&plane.core, &first.task_id, RunState::Pending).await;
    let mut other = plane.worker("w2", 1).await;
    plane.pass_time(&clock, 2).await;
    stopped(&mut mute, &first).await;
    let second = tokio::select! {
        assignment = other.next_assignment() => assignment,
        assignment = mute.next_assignment() => assignment,
    };
    assert_eq!((&second.task_id, second.spec.unwrap().attempt), (&first.task_id, 1));
    mute.claim(&first).await;
    stopped(&mut mute, &first).await;
    plane.stop().await;
}

async fn a_silent_worker_loses_its_lease_and_its_word(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut worker = plane.worker("w1", 1).await;
    let first = claimed(&plane, &mut worker).await;
    worker.send_events(&first.execution_id, EventSource::Sidecar, notices(1, 1)).await;
    worker.acked(&first.execution_id, EventSource::Sidecar, 1).await;
    plane.pass_time(&clock, 13).await;
    // Both are on their way at once, in whichever order.
    let (mut told, mut next) = (false, None);
    let second = worker
        .next_where(|frame| {
            match frame {
                ToWorker::Stop(stop) => told |= stop.execution_id == first.execution_id,
                ToWorker::TaskAssignment(assignment) => next = Some(*assignment),
                _ => {}
            }
            if told { next.take() } else { None }
        })
        .await;
    assert_eq!((&second.task_id, second.spec.as_ref().unwrap().attempt), (&first.task_id, 2));

    // What it still says of the first one is refused, counted, and answered with stop.
    worker.send_events(&first.execution_id, EventSource::Sidecar, notices(2, 1)).await;
    stopped(&mut worker, &first).await;
    worker.complete(&first).await;
    stopped(&mut worker, &first).await;
    worker.heartbeat(&[first.execution_id.clone(), second.execution_id.clone()], 0).await;
    stopped(&mut worker, &first).await;
    assert_eq!(plane.core.counters.superseded.get(), 3);
    assert_eq!(stored_notices(&plane, &first.task_id).await.len(), 1);
    worker.claim(&second).await;
    worker.complete(&second).await;
    worker.report_acked(&second.execution_id).await;
    reached(&plane.core, &first.task_id, RunState::Succeeded).await;
    plane.stop().await;
}

async fn heartbeats_keep_a_lease(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut worker = plane.worker("w1", 1).await;
    let run = claimed(&plane, &mut worker).await;
    for beat in 1..=4 {
        clock.advance(Duration::from_secs(10));
        worker.heartbeat(std::slice::from_ref(&run.execution_id), 0).await;
        let until = START + beat * 10_000 + 12_000;
        eventually("the lease is renewed", async || {
            let row = plane.core.store.execution(&run.execution_id).await.ok()??;
            (row.lease_expires_at == until).then_some(())
        })
        .await;
        control_plane::reaper::pass(&plane.core).await.unwrap();
    }
    reached(&plane.core, &run.task_id, RunState::Claimed).await;
    plane.stop().await;
}

async fn a_plane_that_just_started_reaps_nothing(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut worker = plane.worker("w1", 1).await;
    let run = claimed(&plane, &mut worker).await;
    plane.stop().await;

    // Long after: every lease is over, but it was the plane that was away.
    clock.advance(Duration::from_mins(10));
    let plane = db.plane_with(clock.clone(), settings()).await;
    control_plane::reaper::pass(&plane.core).await.unwrap();
    reached(&plane.core, &run.task_id, RunState::Claimed).await;
    let again = Hello { executions: vec![running(&run)], ..hello(1) };
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", again).await;
    assert!(worker.verdict(&run.execution_id).unwrap().keep);
    worker.complete(&run).await;
    worker.report_acked(&run.execution_id).await;
    plane.stop().await;
}

async fn cancellation(worker: &mut FakeWorker, run: &TaskAssignment) {
    worker
        .next_where(|frame| match frame {
            ToWorker::TaskCancellation(cancel) => (cancel.task_id == run.task_id).then_some(()),
            _ => None,
        })
        .await;
}

async fn a_cancel_reaches_the_worker(db: Db) {
    let plane = db.plane().await;
    let first = hello(1);
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", first.clone()).await;
    submit(&plane.core, &tenant('a'), "x").await;
    let run = worker.next_assignment().await;
    let pending = runs::cancel(&plane.core, &tenant('a'), &run.task_id).await;
    assert!(matches!(pending, Err(CancelError::Pending)));
    worker.claim(&run).await;
    reached(&plane.core, &run.task_id, RunState::Claimed).await;
    runs::cancel(&plane.core, &tenant('a'), &run.task_id).await.unwrap();
    cancellation(&mut worker, &run).await;
    assert!(reached(&plane.core, &run.task_id, RunState::Claimed).await.cancelling);

    // The connection breaks before the answer: on the next one the worker is told again.
    drop(worker);
    let again = Hello { executions: vec![running(&run)], ..first };
    let mut worker = FakeWorker::connect_with(&plane.url(), "unused", "w1", again).await;
    cancellation(&mut worker, &run).await;
    worker.complete_cancelled(&run).await;
    worker.report_acked(&run.execution_id).await;
    let over = reached(&plane.core, &run.task_id, RunState::Cancelled).await;
    assert_eq!(over.reason, Some(FailureReason::TaskCancelled));
    plane.stop().await;
}

async fn a_rejected_run_is_offered_again(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut full = plane.worker("w1", 1).await;
    submit(&plane.core, &tenant('a'), "x").await;
    let run = full.next_assignment().await;
    full.reject(&run, "worker at maximum concurrency").await;
    reached(&plane.core, &run.task_id, RunState::Queued).await;
    let mut other = plane.worker("w2", 1).await;
    let again = other.next_assignment().await;
    assert_eq!((&again.task_id, again.spec.unwrap().attempt), (&run.task_id, 1));
    assert_eq!(plane.core.counters.declined.get(), 1);
    plane.stop().await;
}

/// The handshake and one frame's head by hand: a client of the usual kind is still busy sending when the plane
/// has long refused.
/// Two planes on one database: what one is told, the other one's worker hears, and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_planes_share_one_postgres() {
    let db = Db::postgres().await;
    // A poll so slow that only the planes' words to each other can be what wakes them.
    let slow = Settings { poll: Duration::from_secs(5), ..settings() };
    let near = db.plane_with(Clock::by_hand(START), slow.clone()).await;
    let far = db.plane_with(Clock::by_hand(START), slow).await;
    let mut worker = near.worker("w1", 2).await;
    let id = submit(&far.core, &tenant('a'), "x").await;
    let run = worker.next_assignment().await;
    assert_eq!(run.task_id, id);
    worker.claim(&run).await;
    reached(&far.core, &id, RunState::Claimed).await;

    let core = std::sync::Arc::clone(&far.core);
    let follow = feed::follow(core, tenant('a'), id.clone(), 0).await.unwrap();
    let watcher = far.core.life.spawn(async move {
        use futures_util::TryStreamExt;
        let batches: Vec<_> = follow.try_collect().await.unwrap();
        batches.concat().len()
    });
    worker.send_events(&run.execution_id, EventSource::Sidecar, notices(1, 3)).await;
    worker.acked(&run.execution_id, EventSource::Sidecar, 3).await;
    runs::cancel(&far.core, &tenant('a'), &id).await.unwrap();
    cancellation(&mut worker, &run).await;
    worker.complete_cancelled(&run).await;
    worker.report_acked(&run.execution_id).await;
    // Queued, pending, queued phase, claimed, in progress, three notices, cancelling, cancelled.
    assert_eq!(in_time("the far watcher's end", watcher).await.unwrap(), 10);

    // The worker moves to the other plane and goes on there.
    let next = submit(&near.core, &tenant('a'), "y").await;
    let run = worker.next_assignment().await;
    worker.claim(&run).await;
    reached(&near.core, &next, RunState::Claimed).await;
    let again = Hello { executions: vec![running(&run)], ..hello(2) };
    let mut worker = FakeWorker::connect_with(&far.url(), "unused", "w1", again).await;
    assert!(worker.verdict(&run.execution_id).unwrap().keep);
    worker.complete(&run).await;
    worker.report_acked(&run.execution_id).await;
    reached(&near.core, &next, RunState::Succeeded).await;
    near.stop().await;
    far.stop().await;
}
