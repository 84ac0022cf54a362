//! `ozma bench` itself: that it measures, reads back what it counted, and leaves nothing behind. No time is
//! asserted; times are what it is for.

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// One quick measurement in a folder that must be empty again afterwards.
fn bench(args: &[&str]) -> Value {
    let home = TempDir::new().unwrap();
    let below = home.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_ozma"))
        .args(["bench", "--quick", "--seconds", "1", "--json", "--folder"])
        .arg(&below)
        .args(args)
        .current_dir(home.path())
        .env_clear()
        .env("HOME", home.path())
        .envs(path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    let report: Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(done.status.success(), "{said} {report}");
    assert_eq!(report["left_out"], serde_json::json!([]), "{said}");
    assert!(std::fs::read_dir(&below).unwrap().next().is_none(), "something stayed behind");
    report
}

#[expect(clippy::disallowed_methods, reason = "tests have no main to read the environment in")]
fn path() -> Option<(&'static str, String)> {
    std::env::var("PATH").ok().map(|path| ("PATH", path))
}

/// Every value named is there and over zero.
fn positive(value: &Value, names: &[&str]) {
    for name in names {
        let pointer = format!("/{}", name.replace('.', "/"));
        let number = value.pointer(&pointer).and_then(Value::as_f64);
        assert!(number.is_some_and(|number| number > 0.0), "{name} in {value}");
    }
}

#[test]
fn it_measures_on_sqlite_and_finds_what_it_counted() {
    let report = bench(&[
        "--only",
        "dispatch,lifecycles,events,fairness",
        "--rate",
        "20",
        "--database",
        "sqlite",
    ]);
    positive(&report["machine"], &["cores", "sync_micros"]);
    let [sqlite] = report["databases"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let dispatch = &sqlite["dispatch"];
    positive(dispatch, &["runs", "due_to_assigned.p50_ms", "due_to_assigned.p99_ms"]);
    // Two seconds that warm up and one that counts.
    assert_eq!((dispatch["verified"].as_u64(), dispatch["runs"].as_u64()), (Some(60), Some(20)));
    let lives = &sqlite["lifecycles"];
    positive(lives, &["runs", "per_second", "plane_micros_a_run", "verified"]);
    assert!(lives["verified"].as_u64() >= lives["runs"].as_u64(), "{lives}");
    for events in sqlite["events"].as_array().unwrap() {
        positive(events, &["acknowledged", "per_second", "verified"]);
        assert!(events["verified"].as_u64() >= events["acknowledged"].as_u64(), "{events}");
    }
    positive(&sqlite["fairness"], &["alone.count", "under_the_flood.count", "flood_assigned"]);
}

#[test]
fn it_measures_on_a_postgresql_of_its_own() {
    let report = bench(&["--only", "lifecycles", "--database", "postgres"]);
    let [postgres] = report["databases"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let durable = "(fsync on, synchronous_commit on)";
    assert!(postgres["durability"].as_str().unwrap().ends_with(durable), "{postgres}");
    positive(&postgres["lifecycles"], &["runs", "per_second", "database_micros_a_run", "verified"]);
}

#[test]
fn a_server_that_is_none_is_said() {
    let done = Command::new(env!("CARGO_BIN_EXE_ozma"))
        .args(["bench", "--database", "postgres", "--database-url", "mysql://x"])
        .args(["--only", "lifecycles", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let left_out = report["left_out"][0].as_str().unwrap();
    assert!(left_out.contains("must be like postgres://"), "{left_out}");
    assert_eq!(done.status.code(), Some(3));
}
