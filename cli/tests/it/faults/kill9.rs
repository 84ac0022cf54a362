//! Many runs while planes, workers, sidecars and containers die at random moments, and links break: every run ends
//! once, and its transcript is what its provider printed.

use std::time::Instant;

use super::{
    chaos::Chaos,
    fleet::{Fleet, Keep, Plan},
    load::{Load, verdict},
    long, say,
};

/// Runs of each test: in every build, and with `scripts/test.sh --long`. A machine with two cores starts some eight
/// containers a second.
const RUNS: u32 = 100;
const RUNS_LONG: u32 = 200;

const LEASE_MS: u64 = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_survive_kill_9_on_sqlite() {
    survive(Plan { keep: Keep::Sqlite, workers: 3, lease_ms: LEASE_MS, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_survive_kill_9_on_postgres_with_two_planes() {
    let keep = Keep::Postgres;
    survive(Plan { keep, planes: 2, workers: 3, lease_ms: LEASE_MS, ..Plan::default() }).await;
}

async fn survive(plan: Plan) {
    let began = Instant::now();
    let runs = if long() { RUNS_LONG } else { RUNS };
    let mut chaos = Chaos::seeded(seed(), plan.lease_ms, runs * 3 / 2);
    let dice = chaos.dice();
    let mut fleet = Fleet::start(plan).await;
    let caller = fleet.caller();
    let mut load = Load::begin(caller.clone(), runs, dice).await;

    // The last quarter ends in peace: a run whose containers die again and again waits longer each time.
    chaos.rage_until(&mut fleet, load.until_ended(runs * 3 / 4)).await;
    let raged = began.elapsed();
    load.until_ended(runs).await;

    let entries = load.entries();
    let found = verdict(&caller, entries).await;
    say(&format!(
        "{runs} runs, {} attempts, {} cancelled; {} blows {}; answers {:?}; {raged:.0?} of chaos, {:.0?} in all",
        found.attempts,
        entries.iter().filter(|entry| entry.cancelled).count(),
        chaos.blows(),
        chaos.report(),
        caller.seen(),
        began.elapsed(),
    ));
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
    fleet.finish().await;
}

/// `OZMA_SEED`, or a new one.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tests have no main to read configuration in")]
    let given = std::env::var("OZMA_SEED").ok();
    given.map_or_else(|| getrandom::u64().unwrap(), |text| text.parse().unwrap())
}
