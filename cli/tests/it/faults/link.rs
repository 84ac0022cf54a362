//! The link between worker and plane: cut in the middle of frames, or black-holed for longer than the lease.

use std::time::Duration;

use protocol::{api::runs::RunItem, run::RunState};
use serde_json::json;

use super::{
    PATIENCE,
    caller::Caller,
    dice::Dice,
    fleet::{Fleet, Plan, running},
    patiently, say,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

const LEASE_MS: u64 = 2_000;

async fn submit(caller: &Caller, script: Script) -> Entry {
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    Entry::new(caller.submit(&environment, &script.prompt(), "one").await, script)
}

async fn judge(caller: &Caller, entry: &Entry) -> RunItem {
    let item = caller.ended(&entry.run).await;
    let complaints = entry.complaints(&item, &caller.events(&entry.run).await);
    assert!(complaints.is_empty(), "{complaints:?}\n{}", caller.told(&entry.run).await);
    item
}

/// Cuts, each after some bytes more, whatever frame they fall in: the lease outlives them, so the first attempt is the
/// only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_in_the_middle_of_frames_loses_and_doubles_nothing() {
    const CUTS: usize = 8;
    let fleet = Fleet::start(Plan::default()).await;
    let caller = fleet.caller();
    let entry = submit(&caller, Script { seed: 5, lines: 600, wait: 250 }).await;
    caller.until_printed(&entry.run, 1_000).await;
    let mut dice = Dice::seeded(5);
    let connections = || fleet.link(0).connections();
    for _ in 0..CUTS {
        let before = connections();
        fleet.link(0).cut_after(u32::try_from(dice.below(20_000)).unwrap());
        // Until it has dialled again, or has nothing more to say.
        patiently(PATIENCE, "the worker dials again", || async {
            let again = connections() > before;
            let over = !again && caller.run(&entry.run).await.state.is_terminal();
            (again || over).then_some(())
        })
        .await;
    }
    say(&format!("{} connections over {CUTS} cuts", connections()));
    let item = judge(&caller, &entry).await;
    assert_eq!((item.state, item.attempt), (RunState::Succeeded, 1));
    assert!(connections() > CUTS / 2, "it was over before it was cut");
    fleet.finish().await;
}

/// The worker is heard again when its run has long begun elsewhere: it stops its container at once, and what it still
/// says of it is refused and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_holed_worker_is_superseded_by_another() {
    let fleet = Fleet::start(Plan { workers: 2, lease_ms: LEASE_MS, ..Plan::default() }).await;
    let caller = fleet.caller();
    // Longer than the lease, so that both containers run at the same time.
    let entry = submit(&caller, Script { seed: 6, lines: 600, wait: 200 }).await;
    caller.until_printed(&entry.run, 1_000).await;
    let first = caller.run(&entry.run).await;
    let hole = fleet.worker_named(first.worker_host.as_deref().unwrap());
    let containers = running("ozma.run", &entry.run);
    let refused = caller.metric("superseded_facts_total").await;

    fleet.link(hole).stall();
    let again = |item: &RunItem| item.attempt == 2 && item.state == RunState::Inprogress;
    let second = caller.until(&entry.run, "it runs elsewhere", again).await;
    assert_ne!(second.worker_host, first.worker_host);
    assert_eq!(running("ozma.run", &entry.run).len(), 2, "nobody has told the first to stop");
    fleet.link(hole).open();
    gone(&containers, &entry.run).await;
    let refused = caller.metric("superseded_facts_total").await - refused;
    assert!(refused > 0, "what the first had to say was not refused");

    let item = judge(&caller, &entry).await;
    assert_eq!((item.state, item.attempt), (RunState::Succeeded, 2));
    assert_eq!(item.worker_host, second.worker_host);
    fleet.finish().await;
}

/// With nobody else to take over, the same worker begins again when it is heard, and what it began before is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_holed_worker_begins_again_when_it_is_alone() {
    let fleet = Fleet::start(Plan { lease_ms: LEASE_MS, ..Plan::default() }).await;
    let caller = fleet.caller();
    let entry = submit(&caller, Script { seed: 7, lines: 400, wait: 200 }).await;
    caller.until_printed(&entry.run, 1_000).await;
    let containers = running("ozma.run", &entry.run);
    fleet.link(0).stall();
    caller.until(&entry.run, "it is queued again", |item| !item.attempts.is_empty()).await;
    fleet.link(0).open();
    gone(&containers, &entry.run).await;
    let item = judge(&caller, &entry).await;
    assert_eq!((item.state, item.attempt), (RunState::Succeeded, 2));
    assert_eq!(item.attempts[0].reason, "worker_lost");
    fleet.finish().await;
}

/// A worker that can speak and is not heard, or hears and cannot speak, is for the lease to find out: here it comes back
/// before that, again and again, and the run never notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_black_holes_cost_nothing() {
    let fleet = Fleet::start(Plan { lease_ms: 6_000, ..Plan::default() }).await;
    let caller = fleet.caller();
    let entry = submit(&caller, Script { seed: 8, lines: 600, wait: 100 }).await;
    caller.until_printed(&entry.run, 1_000).await;
    for _ in 0..4 {
        fleet.link(0).stall();
        // The fault itself takes its time: a good part of the lease.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        fleet.link(0).open();
        let told = caller.events(&entry.run).await.len();
        patiently(PATIENCE, "events flow again", || async {
            let item = caller.run(&entry.run).await;
            let more = caller.events(&entry.run).await.len() > told;
            (more || item.state.is_terminal()).then_some(())
        })
        .await;
    }
    let item = judge(&caller, &entry).await;
    assert_eq!((item.state, item.attempt), (RunState::Succeeded, 1));
    fleet.finish().await;
}

async fn gone(containers: &[String], run: &str) {
    patiently(PATIENCE, "the superseded container is stopped", || async {
        let now = running("ozma.run", run);
        (!containers.iter().any(|container| now.contains(container))).then_some(())
    })
    .await;
}
