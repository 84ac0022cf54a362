//! The store's writer, on both databases: what shares a commit shares nothing else.

use std::{sync::Arc, time::Duration};

use control_plane::{
    core::Core,
    feed,
    link::Peer,
    reports,
    store::{Db as Driver, Ingested, Recorded, Store, StoreError},
};
use futures_util::future::{join, join_all};
use protocol::{
    event::EventSource,
    ids::RunId,
    link::{Events, FromWorker, TaskCompleted, ToWorker},
    run::RunState,
};
use test_support::worker::numbered;

use crate::{
    base::{Db, admin, on_both, submit, tenant},
    step::{
        INSTANCE, LEASE, claim_up_to, claimed, output, poison, report, state, succeeded, worker,
    },
};

on_both!(
    a_poisoned_item_harms_no_other,
    two_reports_of_one_execution_share_a_group,
    what_a_dropped_caller_handed_in_counts,
    more_than_there_is_room_for_waits,
    nothing_acknowledged_is_lost_when_the_database_goes,
    answers_come_in_the_order_of_their_frames,
);

/// A transaction that the writer has to wait for: it holds this run, and on `SQLite` all of them.
enum Held {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

async fn hold(store: &Store, run: &RunId) -> Held {
    match store.db() {
        Driver::Sqlite { write, .. } => {
            Held::Sqlite(write.begin_with("begin immediate").await.unwrap())
        }
        Driver::Postgres(pool) => {
            let mut tx = pool.begin().await.unwrap();
            let sql = "select 1 from runs where id = $1 for update";
            sqlx::query(sql).bind(run.as_str()).execute(&mut *tx).await.unwrap();
            Held::Postgres(tx)
        }
    }
}

impl Held {
    async fn release(self) {
        match self {
            Self::Sqlite(tx) => tx.rollback().await.unwrap(),
            Self::Postgres(tx) => tx.rollback().await.unwrap(),
        }
    }
}

/// So many runs, each handed to the worker.
async fn handed(core: &Core, runs: usize) -> Vec<control_plane::store::Assignment> {
    for nth in 0..runs {
        submit(core, &tenant('a'), &format!("run {nth}")).await;
    }
    let assignments = claim_up_to(core, 100).await;
    assert_eq!(assignments.len(), runs);
    assignments
}

/// The first of these waits for the lock alone; the others gather behind it and become one group.
async fn behind<T>(core: &Core, run: &RunId, items: impl Future<Output = T>) -> T {
    let held = hold(&core.store, run).await;
    let release = async {
        tokio::task::yield_now().await;
        held.release().await;
    };
    join(items, release).await.0
}

async fn a_poisoned_item_harms_no_other(db: Db) {
    let core = db.core().await;
    let runs = handed(&core, 12).await;
    poison(&core, &runs[7].run_id).await;
    let said = claimed(&core);
    let recorded = join_all(
        runs.iter().map(|run| reports::record(&core, &run.execution_id, Some(INSTANCE), &said)),
    );
    let recorded = behind(&core, &runs[0].run_id, recorded).await;
    for (nth, recorded) in recorded.into_iter().enumerate() {
        match recorded {
            Err(StoreError::Corrupt("run phases")) => assert_eq!(nth, 7),
            Ok(Recorded::Applied { run_id, state: RunState::Claimed, .. }) => {
                assert_eq!(run_id, runs[nth].run_id);
            }
            other => panic!("{nth}: {other:?}"),
        }
    }
}

async fn two_reports_of_one_execution_share_a_group(db: Db) {
    let core = db.core().await;
    let runs = handed(&core, 2).await;
    let (first, run) = (&runs[0], &runs[1]);
    let (said, over) = (claimed(&core), succeeded());
    let lines = numbered(1, &[output("one"), output("two")]);
    let (id, now) = (&run.execution_id, core.now());
    let item = |report| reports::record(&core, id, Some(INSTANCE), report);
    let all = async {
        tokio::join!(
            reports::record(&core, &first.execution_id, Some(INSTANCE), &said),
            item(&said),
            core.store.ingest(id, INSTANCE, EventSource::Sidecar, &lines[..1], now + LEASE, now),
            core.store.ingest(id, INSTANCE, EventSource::Sidecar, &lines, now + LEASE, now),
            item(&over),
            item(&over),
            item(&said),
            core.store.ingest(id, INSTANCE, EventSource::Sidecar, &lines, now + LEASE, now),
        )
    };
    let (_, took, one, two, done, again, late, lost) =
        Box::pin(behind(&core, &first.run_id, all)).await;
    assert!(matches!(took.unwrap(), Recorded::Applied { state: RunState::Claimed, .. }));
    assert!(matches!(one.unwrap(), Ingested::Stored { seq: 1, stored: 1, .. }));
    assert!(matches!(two.unwrap(), Ingested::Stored { seq: 2, stored: 1, repeated: 1, .. }));
    assert!(matches!(done.unwrap(), Recorded::Applied { state: RunState::Succeeded, .. }));
    assert_eq!(again.unwrap(), Recorded::Already);
    assert_eq!(late.unwrap(), Recorded::Superseded);
    assert_eq!(lost.unwrap(), Ingested::Superseded);
    let kinds = crate::step::kinds(&core, &run.run_id).await;
    let expected =
        ["state", "state", "phase_finished", "state", "state", "output", "output", "state"];
    assert_eq!(kinds, expected);
    assert_eq!(state(&core, &run.run_id).await, RunState::Succeeded);
}

async fn what_a_dropped_caller_handed_in_counts(db: Db) {
    let core = db.core().await;
    let run = handed(&core, 1).await.remove(0);
    let held = hold(&core.store, &run.run_id).await;
    {
        let said = claimed(&core);
        let record = reports::record(&core, &run.execution_id, Some(INSTANCE), &said);
        let waited = tokio::time::timeout(Duration::from_millis(1), record).await;
        assert!(waited.is_err(), "it waits for the commit");
    }
    held.release().await;
    crate::base::reached(&core, &run.run_id, RunState::Claimed).await;
}

async fn more_than_there_is_room_for_waits(db: Db) {
    const MANY: usize = 3_000;
    let core = db.core().await;
    let run = handed(&core, 1).await.remove(0);
    let said = claimed(&core);
    let record = || reports::record(&core, &run.execution_id, Some(INSTANCE), &said);
    let all = join_all((0..MANY).map(|_| record()));
    let recorded = behind(&core, &run.run_id, all).await;
    let mut recorded = recorded.into_iter().map(Result::unwrap);
    assert!(matches!(recorded.next(), Some(Recorded::Applied { .. })));
    assert_eq!(recorded.filter(|again| *again == Recorded::Already).count(), MANY - 1);
}

async fn nothing_acknowledged_is_lost_when_the_database_goes(db: Db) {
    let core = db.core().await;
    let runs = handed(&core, 20).await;
    report(&core, &runs[0], claimed(&core)).await;
    let said = claimed(&core);
    let held = hold(&core.store, &runs[1].run_id).await;
    let all = join_all(
        runs[1..]
            .iter()
            .map(|run| reports::record(&core, &run.execution_id, Some(INSTANCE), &said)),
    );
    // The pool gives no connection from here on; what has one already may go on.
    let closing = async {
        tokio::task::yield_now().await;
        match core.store.db() {
            Driver::Sqlite { write, .. } => {
                let closed = write.close();
                held.release().await;
                closed.await;
            }
            Driver::Postgres(pool) => {
                let closed = pool.close();
                held.release().await;
                closed.await;
            }
        }
    };
    let (recorded, ()) = join(all, closing).await;
    let again = db.store().await;
    let mut refused = 0;
    for (run, recorded) in
        runs.iter().zip(std::iter::once(None).chain(recorded.into_iter().map(Some)))
    {
        let stored = again.run(&admin(), &run.run_id).await.unwrap().state;
        match recorded {
            None | Some(Ok(Recorded::Applied { .. })) => assert_eq!(stored, RunState::Claimed),
            Some(Err(StoreError::Unavailable(_))) => {
                assert_eq!(stored, RunState::Pending);
                refused += 1;
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    // On PostgreSQL the first group had its connection already.
    if matches!(again.db(), Driver::Sqlite { .. }) {
        assert_eq!(refused, 19);
    }
    core.store.close().await;
    let late = reports::record(&core, &runs[1].execution_id, Some(INSTANCE), &said).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))));
}

async fn answers_come_in_the_order_of_their_frames(db: Db) {
    let core = db.core().await;
    let hello = test_support::worker::hello(2);
    let (mut peer, mut queue) =
        Peer::open(Arc::clone(&core), worker(), Some(&hello)).await.unwrap();
    assert!(matches!(queue.recv().await, Some(ToWorker::Welcome(_))));
    let run = handed(&core, 1).await.remove(0);
    let process = &peer.connection().instance_id;
    core.store.adopt(&run.execution_id, process, core.now() + LEASE).await.unwrap();
    let held = hold(&core.store, &run.run_id).await;
    let source = EventSource::Sidecar;
    for first in 0..40 {
        let events = numbered(first * 2 + 1, &[output("a"), output("b")]);
        let execution_id = run.execution_id.clone();
        peer.take(FromWorker::Events(Events { execution_id, source, events })).await.unwrap();
    }
    let completed = FromWorker::TaskCompleted(TaskCompleted {
        task_id: run.run_id.clone(),
        execution_id: Some(run.execution_id.clone()),
        message: "done".to_owned(),
        exit_code: Some(0),
        peak_memory_bytes: None,
        after: None,
        task_state: None,
    });
    peer.take(completed.clone()).await.unwrap();
    assert!(peer.owes() && queue.try_recv().is_none(), "nothing is answered before its commit");
    held.release().await;
    peer.hear(completed).await.unwrap();
    for expected in 1..=40 {
        match queue.recv().await {
            Some(ToWorker::Ack(ack)) => assert_eq!(ack.seq, expected * 2),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 {
        assert!(matches!(queue.recv().await, Some(ToWorker::ReportAck(_))));
    }
    assert!(queue.try_recv().is_none());
    let page = feed::events_page(&core, &admin(), &run.run_id, 0, 1_000).await.unwrap();
    assert!(page.complete);
    assert_eq!(page.events.iter().filter(|event| event.kind == "output").count(), 80);
    peer.close().await;
}
