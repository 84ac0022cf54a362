//! The database is killed, or takes connections and answers nothing, for several leases: the API says so, workers keep
//! what they have, and afterwards every run goes on where it was, in its first attempt.

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
    long, patiently, say,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

/// Short, so that several fit into a test.
const LEASE_MS: u64 = 5_000;

/// How long the fault lasts.
const LEASES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Killed,
    /// It takes connections and says nothing, then goes on where it was.
    Silent,
    /// The same, and every connection breaks at the end.
    SilentThenCut,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_costs_no_run_an_attempt() {
    away(Fault::Killed, LEASE_MS, LEASES * Duration::from_millis(LEASE_MS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_does_not_answer_costs_no_run_an_attempt() {
    away(Fault::Silent, LEASE_MS, LEASES * Duration::from_millis(LEASE_MS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_whose_connections_break_after_a_silence_costs_no_run_an_attempt() {
    away(Fault::SilentThenCut, LEASE_MS, LEASES * Duration::from_millis(LEASE_MS)).await;
}

/// Half a minute by the default settings; with `--long` only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_away_for_half_a_minute_costs_no_run_an_attempt() {
    if long() {
        away(Fault::Killed, 12_000, Duration::from_secs(30)).await;
    }
}

async fn away(fault: Fault, lease_ms: u64, lasts: Duration) {
    let keep = Keep::OwnPostgres;
    let plan = Plan { keep, planes: 2, workers: 2, lease_ms, ..Plan::default() };
    let mut fleet = Fleet::start(plan).await;
    let caller = fleet.caller();
    let environment = caller.environment(images::busybox(), PROVIDER, json!({})).await;
    let mut entries = Vec::new();
    for nth in 0..4 {
        // Some end while the database is away, some after.
        let script = Script { seed: 20 + nth, lines: 600, wait: 30 + 60 * nth };
        let run = caller.submit(&environment, &script.prompt(), &format!("before-{nth}")).await;
        caller.until_printed(&run, 1_000).await;
        entries.push(Entry::new(run, script));
    }

    let (database, link) = fleet.database();
    let began = Instant::now();
    match fault {
        Fault::Killed => database.kill(),
        Fault::Silent | Fault::SilentThenCut => link.stall(),
    }
    // Asked for meanwhile, again and again, and made once.
    let meanwhile = Script { seed: 30, lines: 100, wait: 5 };
    let mut asking = JoinSet::new();
    asking.spawn({
        let (caller, environment) = (caller.clone(), environment.clone());
        async move { caller.submit(&environment, &meanwhile.prompt(), "meanwhile").await }
    });
    let refused = refused(&caller, &entries[0].run).await;
    say(&format!("{fault:?}: refused after {:.1?} with {refused}", began.elapsed()));
    // The fault itself takes its time.
    tokio::time::sleep(lasts.saturating_sub(began.elapsed())).await;
    let (database, link) = fleet.database();
    match fault {
        Fault::Killed => {
            database.start_again();
            link.lead_to(&[database.addr()]);
        }
        Fault::Silent => link.open(),
        Fault::SilentThenCut => {
            link.cut();
            link.open();
        }
    }
    let back = Instant::now();
    entries.push(Entry::new(asking.join_next().await.unwrap().unwrap(), meanwhile));
    say(&format!("{fault:?}: a run was taken {:.1?} after its end", back.elapsed()));

    for entry in &entries {
        let item = caller.ended(&entry.run).await;
        let told = caller.told(&entry.run).await;
        assert_eq!((item.state, item.attempt), (RunState::Succeeded, 1), "{told}");
    }
    let found = verdict(&caller, &entries).await;
    say(&format!("{fault:?}: answers {:?}", caller.seen()));
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
    fleet.finish().await;
}

/// Waits until the API says that it cannot answer, as it should: 503, when to try again, and in one form.
async fn refused(caller: &Caller, run: &str) -> String {
    let path = format!("/api/v1/agent/runs/{run}");
    patiently(PATIENCE, "the API refuses", || async {
        let answer = caller.ask(Method::GET, &path, None).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        // Answered before the plane noticed, or by a limit on time.
        if status != 503 {
            assert!(status == 200 || status == 408, "{status}");
            return None;
        }
        let seconds = headers.get(header::RETRY_AFTER).expect("it says when to try again");
        let problem: Value = serde_json::from_slice(&answer.bytes().await.ok()?).unwrap();
        assert_eq!((&problem["status"], &problem["retryable"]), (&json!(503), &json!(true)));
        Some(format!("503, again in {} s: {}", seconds.to_str().unwrap(), problem["error"]))
    })
    .await
}
