//! A worker that is gone for good, by the default settings: its runs begin again on another one.

use std::time::{Duration, Instant};

use protocol::run::RunState;
use serde_json::json;

use super::{
    fleet::{Fleet, Plan},
    say,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

/// What `docs/OPERATING.md` promises; told when it is missed, and not asserted, since a busy machine is late.
const PROMISED: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_run_begins_again_on_another() {
    let mut fleet = Fleet::start(Plan { workers: 2, ..Plan::default() }).await;
    let caller = fleet.caller();
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let script = Script { seed: 4, lines: 300, wait: 100 };
    let run = caller.submit(&environment, &script.prompt(), "one").await;
    caller.until_printed(&run, 1_000).await;

    let first = caller.run(&run).await.worker_host.unwrap();
    let lost = fleet.worker_named(&first);
    let killed = Instant::now();
    fleet.kill_worker(lost);
    caller.until(&run, "it is queued again", |item| !item.attempts.is_empty()).await;
    let queued = killed.elapsed();
    let begun = caller.until(&run, "it runs again", |item| {
        item.attempt == 2 && item.state == RunState::Inprogress
    });
    let again = begun.await.worker_host.unwrap();
    assert_ne!(again, first);
    let late = if queued > PROMISED { ", which is late" } else { "" };
    say(&format!(
        "queued again {queued:.1?} after the worker's SIGKILL{late}, running again after {:.1?}",
        killed.elapsed()
    ));

    let item = caller.ended(&run).await;
    assert_eq!(item.attempts[0].reason, "worker_lost");
    assert_eq!((item.attempt, item.attempts.len()), (2, 1));
    let entry = Entry::new(run.clone(), script);
    let complaints = entry.complaints(&item, &caller.events(&run).await);
    assert!(complaints.is_empty(), "{complaints:?}");
    // What it had left is removed as soon as it is heard again.
    fleet.start_worker(lost);
    fleet.finish().await;
}
