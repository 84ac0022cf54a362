//! Two planes on one `PostgreSQL`, restarted one after the other as an operator does it: runs, cancels and streams go
//! on through whichever is up, and it makes no difference which one a worker is connected to.

use protocol::run::RunState;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    PATIENCE,
    caller::Wish,
    dice::Dice,
    fleet::{Fleet, Keep, Plan},
    load::{Load, verdict},
    patiently, say,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

const RUNS: u32 = 40;

/// Restarts at least; more if the runs last longer.
const RESTARTS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_two_planes_costs_no_run_an_attempt() {
    let mut fleet =
        Fleet::start(Plan { keep: Keep::Postgres, planes: 2, workers: 2, ..Plan::default() }).await;
    let caller = fleet.caller();
    let mut load = Load::begin(caller.clone(), RUNS, Dice::seeded(10)).await;
    let mut restarts = 0;
    while restarts < RESTARTS || load.entries().len() < RUNS as usize / 2 {
        let nth = restarts % fleet.planes();
        fleet.stop_plane(nth).await;
        fleet.start_plane(nth).await;
        let plane = fleet.caller_of(nth);
        patiently(PATIENCE, "the plane is ready for traffic", || async {
            let answer = plane.ask(Method::GET, "/ready", None).await?;
            answer.status().is_success().then_some(())
        })
        .await;
        restarts += 1;
        // Some work between two restarts, so that it is done in the midst of it.
        let ended = u32::try_from(load.entries().len()).unwrap();
        load.until_ended((ended + 3).min(RUNS)).await;
    }
    load.until_ended(RUNS).await;
    let found = verdict(&caller, load.entries()).await;
    say(&format!("{RUNS} runs over {restarts} restarts; answers {:?}", caller.seen()));
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
    for entry in load.entries() {
        let item = caller.run(&entry.run).await;
        let cancel = item.state == RunState::Cancelled;
        assert!(item.attempt <= 1 && (cancel || item.attempts.is_empty()), "{:?}", item.attempts);
    }
    fleet.finish().await;
}

/// Worker 0 knows plane 0 alone, worker 1 plane 1; each run is followed and cancelled through the plane that its worker
/// does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_followed_and_cancelled_through_the_other_plane() {
    let fleet = Fleet::start(Plan {
        keep: Keep::Postgres,
        planes: 2,
        workers: 2,
        pinned: true,
        ..Plan::default()
    })
    .await;
    let caller = fleet.caller_of(0);
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let workers = fleet.worker_ids();
    let mut under_way = JoinSet::new();
    for nth in 0..4 {
        // Asked for through plane 0, whoever runs it: the planes wake each other.
        let worker = nth as usize % 2;
        let script = Script { seed: 11 + nth, lines: 400, wait: 100 };
        let (prompt, key) = (script.prompt(), format!("other-{nth}"));
        let run = caller.submit_to(&workers[worker], &environment, &prompt, &key).await;
        let mut entry = Entry::new(run, script);
        let cancel = nth < 2;
        let other = fleet.caller_of(1 - worker);
        under_way.spawn(async move {
            if cancel {
                other.until_printed(&entry.run, 1_000).await;
                entry.wished = true;
                entry.cancelled = other.cancel(&entry.run).await == Wish::Accepted;
            }
            entry.followed = Some(other.follow(&entry.run).await);
            entry
        });
    }
    for entry in under_way.join_all().await {
        let (item, events) = (caller.run(&entry.run).await, caller.events(&entry.run).await);
        let complaints = entry.complaints(&item, &events);
        assert!(complaints.is_empty(), "{complaints:?}\n{}", caller.told(&entry.run).await);
        let cancelled = item.state == RunState::Cancelled;
        assert_eq!((cancelled, item.attempt), (entry.cancelled, 1));
    }
    fleet.finish().await;
}
