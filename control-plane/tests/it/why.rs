//! Every answer to why a run does not go on, on both databases, over two planes.

use std::time::Duration;

use control_plane::{
    core::Settings,
    runs::{self, NewRun},
    store::{Limits, Report},
    why::why,
};
use protocol::{
    api::why::{WaitCode, WhyView},
    failure::FailureReason,
    ids::RunId,
    run::RunState,
};
use service::clock::Clock;
use test_support::worker::FakeWorker;

use crate::{
    base::{Db, Plane, START, on_both, prompt, reached, settings, submit, tenant},
    step::{claim, claimed, failed, report},
};

on_both!(every_answer_of_a_run_that_waits, every_answer_of_a_run_that_does_not_wait);

async fn asked(plane: &Plane, id: &RunId) -> WhyView {
    why(&plane.core, &tenant('a'), id).await.unwrap()
}

async fn every_answer_of_a_run_that_waits(db: Db) {
    // Asked here, while the workers are there.
    let (here, there) = (db.plane().await, db.plane().await);
    let wish = |host: Option<&str>, tags: &[&str]| NewRun {
        worker_host: host.map(str::to_owned),
        worker_tags: Some(tags.iter().map(ToString::to_string).collect()),
        ..prompt("x")
    };
    let ann = tenant('a');
    let make = async |new: NewRun| runs::submit(&here.core, &ann, new).await.unwrap().run_id;
    let named = make(wish(Some("w9"), &[])).await;
    let tagged = make(wish(None, &["gpu", "eu"])).await;
    assert_eq!(asked(&here, &named).await.code, WaitCode::NoWorker);

    let hello =
        protocol::link::Hello { tags: vec!["gpu".to_owned()], ..test_support::worker::hello(1) };
    let mut worker = FakeWorker::connect_with(&there.url(), "unused", "w1", hello).await;
    let view = asked(&here, &named).await;
    assert_eq!(view.code, WaitCode::WorkerHostNotConnected);
    assert!(view.message.contains("w9"), "{}", view.message);
    let view = asked(&here, &tagged).await;
    assert_eq!((view.code, view.missing_tags), (WaitCode::NoWorkerWithTags, vec!["eu".to_owned()]));

    let running = submit(&here.core, &ann, "takes the slot").await;
    let task = worker.next_assignment().await;
    assert_eq!(asked(&here, &running).await.code, WaitCode::HandingOver);
    worker.claim(&task).await;
    reached(&here.core, &running, RunState::Claimed).await;
    let view = asked(&here, &running).await;
    assert_eq!((view.code, view.worker_id), (WaitCode::Running, Some("w1".parse().unwrap())));

    // Two of its own and one of each other tenant's that had less than it.
    for letter in ['a', 'a', 'b', 'b', 'c'] {
        submit(&here.core, &tenant(letter), "ahead").await;
    }
    let last = submit(&here.core, &ann, "last").await;
    let view = asked(&here, &last).await;
    assert_eq!(view.code, WaitCode::WorkersFull);
    assert_eq!((view.slots, view.slots_taken), (Some(1), Some(1)));
    assert_eq!((view.ahead_own, view.ahead_others), (Some(2), Some(3)), "{}", view.message);

    let limits = Limits { max_running: Some(1), max_queued: None };
    here.core.store.set_limits(ann.owner(), limits, START).await.unwrap();
    let view = asked(&here, &last).await;
    assert_eq!(
        (view.code, view.running, view.max_running),
        (WaitCode::TenantLimit, Some(1), Some(1))
    );
    here.core.store.clear_limits(ann.owner()).await.unwrap();

    here.core.store.drain_worker(&"w1".parse().unwrap(), START).await.unwrap();
    assert_eq!(asked(&here, &last).await.code, WaitCode::WorkersDraining);
    here.stop().await;
    there.stop().await;
}

async fn every_answer_of_a_run_that_does_not_wait(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(10), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let ann = tenant('a');
    let id = submit(&core, &ann, "x").await;
    let ask = async || why(&core, &ann, &id).await.unwrap();
    let run = claim(&core).await;
    report(&core, &run, Report::Declined { message: "full".to_owned() }).await;
    let view = ask().await;
    assert_eq!(view.code, WaitCode::Declined);
    assert!(view.until.unwrap().0 > core.now());
    core.clock.advance(Duration::from_secs(10));
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    report(&core, &run, failed(FailureReason::ImagePull)).await;
    let view = ask().await;
    assert_eq!((view.code, view.attempt), (WaitCode::WaitingToRetry, Some(1)));
    assert_eq!(view.reason, Some(FailureReason::ImagePull));

    core.clock.advance(Duration::from_secs(10));
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    runs::cancel(&core, &ann, &id).await.unwrap();
    assert_eq!(ask().await.code, WaitCode::Stopping);
    report(&core, &run, failed(FailureReason::Unknown)).await;
    assert_eq!(ask().await.code, WaitCode::Over);
    assert!(why(&core, &tenant('b'), &id).await.is_err(), "it is nobody else's");
}
