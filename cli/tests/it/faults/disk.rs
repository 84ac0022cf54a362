//! The plane's disk is full, in the middle of runs: requests that write are refused in words that help, workers keep
//! what they have, and once there is room everything goes on.

use std::time::{Duration, Instant};

use protocol::run::RunState;
use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    PATIENCE,
    caller::Caller,
    fleet::{Fleet, Keep, Plan},
    load::verdict,
    patiently, say,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

/// Room for what these runs print, and not much more.
const DISK_BYTES: u64 = 48 << 20;

const LEASE_MS: u64 = 5_000;

/// How long the disk stays full.
const FULL: Duration = Duration::from_millis(3 * LEASE_MS);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_costs_no_run_an_attempt() {
    let fleet = Fleet::start(Plan {
        keep: Keep::SmallDisk(DISK_BYTES),
        lease_ms: LEASE_MS,
        ..Plan::default()
    })
    .await;
    let caller = fleet.caller();
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let mut entries = Vec::new();
    for nth in 0..3 {
        let script = Script { seed: 40 + nth, lines: 400, wait: 50 + 100 * nth };
        let run = caller.submit(&environment, &script.prompt(), &format!("before-{nth}")).await;
        caller.until_printed(&run, 1_000).await;
        entries.push(Entry::new(run, script));
    }
    fleet.disk().fill();
    let full = Instant::now();
    let refused = refused(&caller, &environment).await;
    say(&format!("refused after {:.1?}: {refused}", full.elapsed()));
    // What is only read is still answered.
    assert_eq!(caller.run(&entries[0].run).await.run_id.as_str(), entries[0].run);
    let meanwhile = Script { seed: 50, lines: 100, wait: 5 };
    let mut asking = JoinSet::new();
    asking.spawn({
        let (caller, environment) = (caller.clone(), environment.clone());
        async move { caller.submit(&environment, &meanwhile.prompt(), "meanwhile").await }
    });
    // The fault itself takes its time.
    tokio::time::sleep(FULL.saturating_sub(full.elapsed())).await;
    fleet.disk().make_room();
    entries.push(Entry::new(asking.join_next().await.unwrap().unwrap(), meanwhile));
    for entry in &entries {
        let item = caller.ended(&entry.run).await;
        let told = caller.told(&entry.run).await;
        assert_eq!((item.state, item.attempt), (RunState::Succeeded, 1), "{told}");
    }
    let mut found = verdict(&caller, &entries).await;
    // Those that `refused` asked for and that were made before the disk was quite full are no concern of ours.
    found.wrong.retain(|wrong| !wrong.contains("runs were asked for"));
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
    fleet.finish().await;
}

/// A plane that is killed while its disk is full starts when there is room, with everything that it had acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_killed_on_a_full_disk_has_everything_when_it_is_back() {
    let mut fleet =
        Fleet::start(Plan { keep: Keep::SmallDisk(DISK_BYTES), ..Plan::default() }).await;
    let caller = fleet.caller();
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let script = Script { seed: 60, lines: 500, wait: 100 };
    let run = caller.submit(&environment, &script.prompt(), "one").await;
    caller.until_printed(&run, 1_000).await;
    fleet.disk().fill();
    refused(&caller, &environment).await;
    fleet.kill_plane(0);
    fleet.disk().make_room();
    fleet.start_plane(0).await;
    let entry = Entry::new(run, script);
    let item = caller.ended(&entry.run).await;
    let complaints = entry.complaints(&item, &caller.events(&entry.run).await);
    assert!(complaints.is_empty(), "{complaints:?}\n{}", caller.told(&entry.run).await);
    assert_eq!((item.state, item.attempt), (RunState::Succeeded, 1));
    fleet.finish().await;
}

/// Waits until a request that writes is refused, as it should be: for now, with what to do.
async fn refused(caller: &Caller, environment: &str) -> String {
    let path = "/api/v1/agent/runs";
    // Never to be served: the worker it names does not exist.
    let config = json!({"environment_id": environment, "worker_host": "nobody"});
    let body = json!({"prompt": "x".repeat(100_000), "config": config});
    patiently(PATIENCE, "a request that writes is refused", || async {
        let answer = caller.ask(Method::POST, path, Some(&body)).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            return None;
        }
        let problem: Value = serde_json::from_slice(&answer.bytes().await.ok()?).unwrap();
        assert!(status == 503 || status == 507, "{status} {problem}");
        headers.get(header::RETRY_AFTER).expect("it says when to try again");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("disk"), "it does not say what to do: {problem}");
        Some(problem["error"].to_string())
    })
    .await
}
