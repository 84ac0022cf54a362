//! The link and lease protocol under every misfortune at once: the code of real planes and workers on a simulated
//! network, with simulated containers and a simulated time. A schedule follows from its seed alone, so that a seed
//! that failed fails again. What it proves and what not: docs/decisions/0005-simulation.md.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod audit;
mod chance;
mod chaos;
mod container;
mod database;
mod network;
mod plane;
mod tending;
mod trace;
mod users;
mod worker;
mod world;

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use world::{Sabotage, World};

/// Seeds of an ordinary test run.
const SEEDS: Range<u64> = 0..300;

/// Seeds of `scripts/test.sh --long`.
const MORE_SEEDS: Range<u64> = 0..3_000;

/// Seeds within which a part that is broken on purpose has to be found out.
const FOUND_WITHIN: u64 = 40;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// `OZMA_SIM_SEED=n` runs one seed and prints its schedule; `OZMA_SIM_SEEDS=from..to` runs others than usual.
#[test]
#[expect(clippy::disallowed_methods, reason = "how a person chooses the seeds")]
#[expect(clippy::print_stderr, reason = "what was asked for, and a summary")]
fn every_run_ends_once_whatever_happens() {
    if let Ok(seed) = std::env::var("OZMA_SIM_SEED") {
        let outcome = World::new(seed.parse().expect("OZMA_SIM_SEED is a number")).run();
        eprintln!("{}", outcome.trace);
        assert!(outcome.wrong.is_empty(), "{}", outcome.report(usize::MAX));
        return;
    }
    let long = std::env::var("OZMA_LONG").is_ok_and(|value| value == "1");
    let usual = if long { MORE_SEEDS } else { SEEDS };
    let seeds = std::env::var("OZMA_SIM_SEEDS").map_or(usual, |text| {
        let (from, to) = text.split_once("..").expect("OZMA_SIM_SEEDS is from..to");
        from.parse().unwrap()..to.parse().unwrap()
    });
    let next = AtomicU64::new(seeds.start);
    let (failed, slowest) = (Mutex::new(None), Mutex::new((0, 0)));
    let executions = AtomicU64::new(0);
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = World::new(seed).run();
            executions.fetch_add(outcome.executions as u64, Ordering::Relaxed);
            let mut slowest = slowest.lock().unwrap();
            *slowest = (*slowest).max((outcome.rested_after, seed));
            drop(slowest);
            if !outcome.wrong.is_empty() {
                failed.lock().unwrap().get_or_insert(outcome);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (ms, slow) = *slowest.lock().unwrap();
    let executions = executions.into_inner();
    eprintln!("{executions} executions; seed {slow} took longest to come to rest: {ms} ms");
    if let Some(outcome) = failed.into_inner().unwrap() {
        panic!("{}", outcome.report(400));
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in [3, 11] {
        let (first, second) = (World::new(seed).run(), World::new(seed).run());
        assert_eq!(first.trace.to_string(), second.trace.to_string());
    }
}

/// A check that cannot fail proves nothing: each part is broken on purpose, and must be found out.
#[test]
fn what_is_broken_on_purpose_is_found_out() {
    for (sabotage, words) in [
        (Sabotage::AcknowledgesUnstored, "was acknowledged and is not stored"),
        (Sabotage::IgnoresStop, "still lives"),
        (Sabotage::SilenceIsSuccess, "SUCCEEDED"),
        (Sabotage::ForgetsAnExecution, "two executions of one run are believed"),
        (Sabotage::SkipsAnEvent, "is not what its provider said"),
        (Sabotage::NeverReports, "is not over"),
        (Sabotage::ReportsAlone, "SUCCEEDED with"),
    ] {
        let found = (0..FOUND_WITHIN).any(|seed| {
            let outcome = World::new(seed).with(sabotage).run();
            outcome.wrong.iter().any(|wrong| wrong.contains(words))
        });
        assert!(found, "{sabotage:?} was not found out by {words:?}");
    }
}
