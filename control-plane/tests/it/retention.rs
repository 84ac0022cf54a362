//! Retention: what ended long enough ago goes with all its rows, in short transactions; everything else stays.

use std::time::Duration;

use control_plane::{
    core::{Core, Settings},
    feed,
    retention::{self, Deleted, Progress},
    runs::{self, Idempotency, NewRun},
    store::{Db as Database, Part, Place, StoreError},
};
use protocol::{
    event::{Event, EventSource},
    failure::FailureReason,
    ids::RunId,
    run::RunState,
};
use service::clock::Clock;
use sha2::{Digest, Sha256};
use test_support::worker::numbered;

use crate::{
    base::{Db, START, admin, on_both, prompt, settings, submit, tenant},
    step::{claim, claimed, failed, ingest, output, report, state, succeeded},
};

on_both!(
    what_is_old_goes_with_all_its_rows,
    events_go_before_their_run,
    one_transaction_is_short,
    two_planes_delete_everything_once,
    a_child_outlives_its_parent,
    a_clock_set_ahead_deletes_nothing,
);

const DAY: Duration = Duration::from_hours(24);

const TABLES: [&str; 6] =
    ["runs", "run_metadata", "executions", "run_events", "artifacts", "artifact_parts"];

fn keeping(runs_for: Option<Duration>, events_for: Option<Duration>) -> Settings {
    Settings { run_retention: runs_for, event_retention: events_for, ..settings() }
}

/// How many rows each table has.
async fn rows(core: &Core) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in TABLES {
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        counts.push(match core.store.db() {
            Database::Sqlite { read, .. } => {
                sqlx::query_scalar::<_, i64>(sql).fetch_one(read).await.unwrap()
            }
            Database::Postgres(pool) => {
                sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap()
            }
        });
    }
    counts
}

/// A run of two attempts that left events and a file.
async fn ended_run(core: &Core, key: &str) -> RunId {
    let request_hash = "00".to_owned();
    let new = NewRun {
        metadata: [("ticket".to_owned(), "1".to_owned())].into(),
        idempotency: Some(Idempotency { key: key.to_owned(), request_hash }),
        ..prompt("x")
    };
    let id = runs::submit(core, &tenant('a'), new).await.unwrap().run_id;
    let first = claim(core).await;
    report(core, &first, claimed(core)).await;
    report(core, &first, failed(FailureReason::ImagePull)).await;
    let second = claim(core).await;
    report(core, &second, claimed(core)).await;
    let uid = format!("u-{key}");
    let file = serde_json::json!({"artifact_uid": uid, "artifact_type": "FILE", "filename": "a",
        "size_bytes": 5, "sha256": sha256(b"hello")});
    let events = [
        output("hi"),
        Event::ArtifactPart {
            artifact_uid: uid.parse().unwrap(),
            index: 0,
            base64: "aGVsbG8=".to_owned(),
        },
        Event::Artifact(serde_json::from_value(file).unwrap()),
    ];
    ingest(core, &second, EventSource::Sidecar, &numbered(1, &events)).await;
    report(core, &second, succeeded()).await;
    assert_eq!(state(core, &id).await, RunState::Succeeded);
    id
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn pass(core: &Core) -> Deleted {
    retention::pass(core, &mut Progress::new(core)).await.unwrap()
}

async fn what_is_old_goes_with_all_its_rows(db: Db) {
    let keep = keeping(Some(30 * DAY), None);
    let core = db.core_with(Clock::by_hand(START), keep).await;
    let old = ended_run(&core, "old").await;
    let cancelled = submit(&core, &tenant('a'), "never begun").await;
    runs::cancel(&core, &tenant('a'), &cancelled).await.unwrap();
    let waiting = submit(&core, &tenant('b'), "still waits").await;
    assert!(rows(&core).await.iter().all(|count| *count > 0), "{:?}", rows(&core).await);

    core.clock.advance(30 * DAY);
    assert_eq!(pass(&core).await, Deleted::default(), "thirty days are not more than thirty days");
    core.clock.advance(Duration::from_millis(1));
    let deleted = pass(&core).await;
    assert_eq!((deleted.runs, deleted.artifacts), (2, 1));
    assert_eq!(core.counters.retention_events.get(), deleted.events);
    for id in [&old, &cancelled] {
        let missing = runs::get(&core, &admin(), id).await.unwrap_err();
        assert!(matches!(missing, StoreError::NotFound));
    }
    // One run and its first event: however long it waits, it is not over.
    assert_eq!(state(&core, &waiting).await, RunState::Queued);
    assert_eq!(rows(&core).await, [1, 0, 0, 1, 0, 0]);

    // The key went with its run.
    let again = Idempotency { key: "old".to_owned(), request_hash: "11".to_owned() };
    let new = NewRun { idempotency: Some(again), ..prompt("x") };
    assert!(!runs::submit(&core, &tenant('a'), new).await.unwrap().repeated);

    let forever = db.core_with(core.clock.clone(), keeping(None, None)).await;
    forever.clock.advance(9_000 * DAY);
    assert_eq!(pass(&forever).await, Deleted::default());
}

async fn events_go_before_their_run(db: Db) {
    let keep = keeping(Some(30 * DAY), Some(DAY));
    let core = db.core_with(Clock::by_hand(START), keep).await;
    let id = ended_run(&core, "a").await;
    let ann = tenant('a');
    assert!(!feed::events_page(&core, &ann, &id, 0, 1_000).await.unwrap().gone);
    core.clock.advance(2 * DAY);
    let mut progress = Progress::new(&core);
    let deleted = retention::pass(&core, &mut progress).await.unwrap();
    assert_eq!((deleted.runs, deleted.artifacts), (0, 1));
    assert!(deleted.events > 5);

    // The run, its answer and its attempts are still told; that there are no events is said.
    let run = runs::get(&core, &ann, &id).await.unwrap();
    assert_eq!((run.state, run.message.as_deref()), (RunState::Succeeded, Some("done")));
    assert_eq!(runs::attempts(&core, &ann, &id).await.unwrap().len(), 2);
    assert!(runs::artifacts(&core, &ann, &id).await.unwrap().is_empty());
    let page = feed::events_page(&core, &ann, &id, 0, 1_000).await.unwrap();
    assert!(page.gone && page.events.is_empty());
    // Who has read to the end is missing nothing.
    let page = feed::events_page(&core, &ann, &id, run.last_seq, 1_000).await.unwrap();
    assert!(!page.gone && page.complete);

    // The next pass goes on from there, and later the run goes too.
    assert_eq!(retention::pass(&core, &mut progress).await.unwrap(), Deleted::default());
    core.clock.advance(30 * DAY);
    assert_eq!(retention::pass(&core, &mut progress).await.unwrap().runs, 1);
    assert_eq!(rows(&core).await, [0; 6]);
}

async fn one_transaction_is_short(db: Db) {
    let core = db.core_with(Clock::by_hand(START), keeping(Some(DAY), None)).await;
    let id = submit(&core, &tenant('a'), "x").await;
    let run = claim(&core).await;
    report(&core, &run, claimed(&core)).await;
    let lines: Vec<_> = (0..2_100).map(|n| output(&n.to_string())).collect();
    for (nth, chunk) in lines.chunks(500).enumerate() {
        let first = u64::try_from(nth).unwrap() * 500 + 1;
        ingest(&core, &run, EventSource::Sidecar, &numbered(first, chunk)).await;
    }
    report(&core, &run, succeeded()).await;
    core.clock.advance(2 * DAY);

    // With no patience at all a transaction is one statement, and all of them together are everything.
    let cutoff = core.now() - 86_400_000;
    let found = core.store.ended_before(cutoff, &Place::default(), 10).await.unwrap();
    let ids: Vec<RunId> = found.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [id]);
    let (mut transactions, mut events) = (0, 0);
    loop {
        let swept = core.store.sweep(&ids, Part::Run, cutoff, || true).await.unwrap();
        transactions += 1;
        assert!(swept.events <= 500, "{swept:?}");
        events += swept.events;
        if swept.done == 1 {
            break;
        }
    }
    assert!(transactions >= 5 && events > 2_100, "{transactions} transactions, {events} events");
    assert_eq!(rows(&core).await, [0; 6]);
    // What is not old enough is not touched, even where somebody names it.
    let young = submit(&core, &tenant('a'), "y").await;
    let swept = core.store.sweep(&[young], Part::Run, cutoff, || false).await.unwrap();
    assert_eq!((swept.done, swept.runs), (1, 0));
}

async fn two_planes_delete_everything_once(db: Db) {
    let keep = keeping(Some(DAY), None);
    let core = db.core_with(Clock::by_hand(START), keep.clone()).await;
    for nth in 0..40 {
        let id = submit(&core, &tenant('a'), &format!("{nth}")).await;
        runs::cancel(&core, &tenant('a'), &id).await.unwrap();
    }
    core.clock.advance(2 * DAY);
    let other = db.core_with(core.clock.clone(), keep).await;
    let (one, two) = tokio::join!(pass(&core), pass(&other));
    // Who comes second may leave it all to the first; the next pass takes what is left.
    let rest = pass(&core).await;
    assert_eq!(one.runs + two.runs + rest.runs, 40);
    assert_eq!(one.events + two.events + rest.events, 80);
    assert_eq!(rows(&core).await, [0; 6]);
}

async fn a_child_outlives_its_parent(db: Db) {
    let core = db.core_with(Clock::by_hand(START), keeping(Some(DAY), None)).await;
    let ann = tenant('a');
    let parent = submit(&core, &ann, "parent").await;
    runs::cancel(&core, &ann, &parent).await.unwrap();
    core.clock.advance(2 * DAY);
    let below = |id: &RunId| NewRun { parent_run_id: Some(id.clone()), ..prompt("child") };
    let child = runs::submit(&core, &ann, below(&parent)).await.unwrap().run_id;
    assert_eq!(pass(&core).await.runs, 1);
    let seen = runs::get(&core, &ann, &child).await.unwrap();
    assert_eq!(seen.parent_run_id, Some(parent.clone()), "it still says whose child it was");
    runs::submit(&core, &ann, below(&child)).await.unwrap();
    assert!(runs::submit(&core, &ann, below(&parent)).await.is_err());
}

async fn a_clock_set_ahead_deletes_nothing(db: Db) {
    let core = db.core_with(Clock::by_hand(START), keeping(Some(DAY), None)).await;
    let id = submit(&core, &tenant('a'), "x").await;
    runs::cancel(&core, &tenant('a'), &id).await.unwrap();
    let mut progress = Progress::new(&core);
    core.clock.jump(400 * 86_400_000);
    assert_eq!(retention::pass(&core, &mut progress).await.unwrap(), Deleted::default());
    assert_eq!(rows(&core).await[0], 1);
}
