//! The steps of a run by hand: claim, report, send events.

use std::sync::Arc;

use control_plane::{
    core::Core,
    feed, reports, runs,
    store::{Assignment, Claim, Claimant, Db as Driver, Ingested, Recorded, Report, Rotation},
};
use protocol::{
    event::{Event, EventLine, EventSource, Phase},
    failure::FailureReason,
    ids::{RunId, WorkerId},
    run::RunState,
};
use test_support::worker::numbered;

use crate::base::{Db, admin, submit, tenant};

pub(crate) const LEASE: i64 = 12_000;
/// The worker process that is handed runs.
pub(crate) const INSTANCE: &str = "i1";

pub(crate) fn worker() -> WorkerId {
    "w1".parse().unwrap()
}

pub(crate) fn claimant(capacity: u32) -> Claimant {
    Claimant {
        worker_id: worker(),
        instance_id: INSTANCE.to_owned(),
        tags: Vec::new(),
        capacity,
        most: 100,
    }
}

/// What these workers are handed, by one look at the queue.
pub(crate) async fn claim_for(core: &Core, claimants: &[Claimant]) -> Vec<Assignment> {
    let claim = Claim {
        claimants: claimants.to_vec(),
        max_running: Some(core.settings.max_running).filter(|&most| most > 0),
        answer_by: core.now() + 30_000,
        now: core.now(),
        rotation: Rotation::default(),
    };
    core.store.claim(&Arc::new(claim)).await.unwrap().assignments
}

/// What a worker with so many slots is handed.
pub(crate) async fn claim_up_to(core: &Core, capacity: u32) -> Vec<Assignment> {
    claim_for(core, &[claimant(capacity)]).await
}

pub(crate) async fn claim(core: &Core) -> Assignment {
    let mut claimed = claim_up_to(core, 100).await;
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

pub(crate) async fn report(core: &Core, run: &Assignment, report: Report) -> Recorded {
    reports::record(core, &run.execution_id, Some(INSTANCE), &report).await.unwrap()
}

pub(crate) fn claimed(core: &Core) -> Report {
    Report::Claimed { lease_until: core.now() + LEASE }
}

pub(crate) fn succeeded() -> Report {
    let message = "done".to_owned();
    Report::Succeeded { message, exit_code: Some(0), peak_memory_bytes: Some(1 << 20) }
}

pub(crate) fn failed(reason: FailureReason) -> Report {
    let message = format!("because of {reason}");
    Report::Failed { reason, message, exit_code: Some(3), peak_memory_bytes: None }
}

pub(crate) async fn ingest(
    core: &Core,
    run: &Assignment,
    source: EventSource,
    events: &[EventLine],
) -> Ingested {
    let (id, now) = (&run.execution_id, core.now());
    core.store.ingest(id, INSTANCE, source, events, now + LEASE, now).await.unwrap()
}

pub(crate) async fn state(core: &Core, id: &RunId) -> RunState {
    runs::get(core, &admin(), id).await.unwrap().state
}

pub(crate) async fn kinds(core: &Core, id: &RunId) -> Vec<String> {
    let page = feed::events_page(core, &admin(), id, 0, 1_000).await.unwrap();
    for (expected, event) in (1..).zip(&page.events) {
        assert_eq!(event.seq, expected, "the run's numbers have no gaps");
    }
    page.events.into_iter().map(|event| event.kind).collect()
}

pub(crate) fn output(text: &str) -> Event {
    Event::Output {
        phase: Phase::Provider,
        stream: protocol::event::Stream::Stdout,
        text: Some(text.to_owned()),
        base64: None,
        partial: false,
    }
}

/// A core with one run in this state.
pub(crate) async fn with_run(db: &Db, until: RunState) -> (Arc<Core>, Assignment) {
    let core = db.core().await;
    submit(&core, &tenant('a'), "do it").await;
    let run = claim(&core).await;
    if until != RunState::Pending {
        report(&core, &run, claimed(&core)).await;
    }
    if until == RunState::Inprogress {
        ingest(&core, &run, EventSource::Sidecar, &numbered(1, &[output("hi")])).await;
    }
    assert_eq!(state(&core, &run.run_id).await, until);
    (core, run)
}

/// Makes the row of a run one that cannot be read.
pub(crate) async fn poison(core: &Core, run: &RunId) {
    rewrite(core, "update runs set phases = 'nonsense' where id = $1", run.as_str()).await;
}

/// Changes what is stored of a run behind the plane's back.
pub(crate) async fn rewrite(core: &Core, sql: &'static str, run: &str) {
    match core.store.db() {
        Driver::Sqlite { write, .. } => {
            sqlx::query(sql).bind(run).execute(write).await.map(|_| ()).unwrap();
        }
        Driver::Postgres(pool) => {
            sqlx::query(sql).bind(run).execute(pool).await.map(|_| ()).unwrap();
        }
    }
}
