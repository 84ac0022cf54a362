//! A cancel always ends, also when nobody is there to obey: by the worker's word, by the end of the hand-over, or by
//! the lease. What it ends stays ended.

use protocol::{api::runs::RunItem, run::RunState};
use serde_json::json;
use test_support::silence::Silence;

use super::{
    PATIENCE,
    caller::{Caller, Wish},
    fleet::{Fleet, Plan, running},
    patiently,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

const SCRIPT: Script = Script { seed: 9, lines: 900, wait: 200 };

/// A short lease, and assignments that are not answered go back soon.
fn plan() -> Plan {
    let settings = &[("OZ_WORKER_CLAIM_TIMEOUT_MS", "2000")];
    Plan { lease_ms: 2_000, settings, ..Plan::default() }
}

async fn submit(caller: &Caller) -> Entry {
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    Entry::new(caller.submit(&environment, &SCRIPT.prompt(), "one").await, SCRIPT)
}

/// It is cancelled, and it is so for good: the worker that comes back does not begin it again.
async fn cancelled(caller: &Caller, mut entry: Entry, attempt: u32) -> Entry {
    assert_eq!(caller.cancel(&entry.run).await, Wish::Accepted);
    (entry.wished, entry.cancelled) = (true, true);
    let item = caller.ended(&entry.run).await;
    assert_eq!((item.state, item.attempt), (RunState::Cancelled, attempt), "{item:?}");
    assert!(!item.cancelling);
    entry
}

/// With everybody back: nothing runs, nothing more is told, and the next run is served.
async fn and_stays_so(fleet: Fleet, caller: &Caller, entry: &Entry) {
    patiently(PATIENCE, "its container is stopped", || async {
        running("ozma.run", &entry.run).is_empty().then_some(())
    })
    .await;
    let next = Script { lines: 20, wait: 1, ..SCRIPT };
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let run = caller.submit(&environment, &next.prompt(), "next").await;
    for entry in [entry, &Entry::new(run, next)] {
        let item = caller.ended(&entry.run).await;
        let complaints = entry.complaints(&item, &caller.events(&entry.run).await);
        assert!(complaints.is_empty(), "{complaints:?}\n{}", caller.told(&entry.run).await);
    }
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_queued_run_with_no_worker_at_all() {
    let mut fleet = Fleet::start(plan()).await;
    fleet.kill_worker(0);
    let caller = fleet.caller();
    let entry = submit(&caller).await;
    // The plane may be handing it to the worker that is no more.
    let queued = |item: &RunItem| item.state == RunState::Queued;
    caller.until(&entry.run, "it waits", queued).await;
    let entry = cancelled(&caller, entry, 0).await;
    fleet.start_worker(0);
    and_stays_so(fleet, &caller, &entry).await;
}

/// Handed over into a black hole: the cancel is refused for the moment, and taken when the hand-over has failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_pending_run_that_nobody_answers_for() {
    let fleet = Fleet::start(plan()).await;
    let caller = fleet.caller();
    let warm = caller.environment(images::busybox(), "true", json!({})).await;
    let warm = caller.submit(&warm, "the worker is known", "warm").await;
    caller.ended(&warm).await;
    fleet.link(0).stall();
    let entry = submit(&caller).await;
    let pending = |item: &RunItem| item.state == RunState::Pending;
    caller.until(&entry.run, "it is handed over", pending).await;
    let entry = cancelled(&caller, entry, 0).await;
    fleet.link(0).open();
    and_stays_so(fleet, &caller, &entry).await;
}

/// Taken, and waiting for an image that never comes, by a worker that dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_claimed_run_whose_worker_died() {
    let registry = Silence::start_on("127.0.0.1:0").await;
    let mut fleet = Fleet::start(plan()).await;
    let caller = fleet.caller();
    let image = format!("{}/slow:latest", registry.addr());
    let environment = caller.environment(&image, PROVIDER, json!({})).await;
    let run = caller.submit(&environment, &SCRIPT.prompt(), "one").await;
    caller.until(&run, "it is taken", |item| item.state == RunState::Claimed).await;
    fleet.kill_worker(0);
    let entry = cancelled(&caller, Entry::new(run, SCRIPT), 1).await;
    fleet.start_worker(0);
    and_stays_so(fleet, &caller, &entry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_run_in_progress_whose_worker_died() {
    let mut fleet = Fleet::start(plan()).await;
    let caller = fleet.caller();
    let entry = submit(&caller).await;
    caller.until_printed(&entry.run, 1_000).await;
    fleet.kill_worker(0);
    let entry = cancelled(&caller, entry, 1).await;
    assert_eq!(running("ozma.run", &entry.run).len(), 1, "nobody has told the container");
    fleet.start_worker(0);
    and_stays_so(fleet, &caller, &entry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_run_in_progress_in_a_black_hole() {
    let fleet = Fleet::start(plan()).await;
    let caller = fleet.caller();
    let entry = submit(&caller).await;
    caller.until_printed(&entry.run, 1_000).await;
    fleet.link(0).stall();
    let entry = cancelled(&caller, entry, 1).await;
    fleet.link(0).open();
    and_stays_so(fleet, &caller, &entry).await;
}

/// The wish is in the database: a plane killed in the same moment obeys it when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_run_whose_plane_dies_with_the_wish() {
    let mut fleet = Fleet::start(plan()).await;
    let caller = fleet.caller();
    let mut entry = submit(&caller).await;
    caller.until_printed(&entry.run, 1_000).await;
    assert_eq!(caller.cancel(&entry.run).await, Wish::Accepted);
    fleet.kill_plane(0);
    fleet.start_plane(0).await;
    (entry.wished, entry.cancelled) = (true, true);
    assert_eq!(caller.ended(&entry.run).await.state, RunState::Cancelled);
    and_stays_so(fleet, &caller, &entry).await;
}
