//! Following a run: everything once, in order, to the end, from any number on.

use std::sync::Arc;

use control_plane::{core::Core, feed, reports, runs, scope::Scope, store::Report};
use futures_util::{StreamExt, pin_mut};
use protocol::{
    event::{Event, EventSource},
    ids::RunId,
};
use test_support::{wait::in_time, worker::numbered};

use crate::{
    base::{Db, admin, on_both, submit, tenant},
    step::claim,
};

on_both!(
    a_follower_sees_everything_once_to_the_end,
    a_follower_goes_on_where_it_was,
    pages_are_bounded,
    a_follower_of_a_foreign_run_sees_nothing,
    a_follower_ends_when_the_plane_drains,
);

/// A run under way with four events of its own and `count` notices, and its execution, still open.
async fn running(core: &Core, count: u64) -> (RunId, protocol::ids::ExecutionId) {
    let id = submit(core, &tenant('a'), "x").await;
    let execution = claim(core).await.execution_id;
    notices(core, &execution, 1, count).await;
    (id, execution)
}

async fn notices(core: &Core, execution: &protocol::ids::ExecutionId, first: u64, count: u64) {
    let events: Vec<_> =
        (0..count).map(|n| Event::Notice { text: (first + n).to_string() }).collect();
    let (lines, worker, now) = (numbered(first, &events), "w1".parse().unwrap(), core.now());
    let source = EventSource::Worker;
    core.store.ingest(execution, &worker, source, &lines, now + 9_000, now).await.unwrap();
}

async fn collect(core: &Arc<Core>, scope: Scope, run: &RunId, after: u64) -> Vec<u64> {
    let followed = feed::follow(Arc::clone(core), scope, run.clone(), after).await.unwrap();
    pin_mut!(followed);
    let mut seen = Vec::new();
    while let Some(batch) = in_time("the feed's next batch", followed.next()).await {
        seen.extend(batch.unwrap().into_iter().map(|event| event.seq));
    }
    seen
}

async fn end(core: &Core, execution: &protocol::ids::ExecutionId) {
    let message = "done".to_owned();
    let report = Report::Succeeded { message, exit_code: None, peak_memory_bytes: None };
    let worker = "w1".parse().unwrap();
    reports::record(core, execution, Some(&worker), &report).await.unwrap();
}

async fn a_follower_sees_everything_once_to_the_end(db: Db) {
    let core = db.core().await;
    let (id, execution) = running(&core, 3).await;
    let follower = collect(&core, tenant('a'), &id, 0);
    let writer = async {
        for n in 0..50 {
            notices(&core, &execution, 4 + n, 1).await;
            core.wake.run(&id);
        }
        end(&core, &execution).await;
    };
    let (seen, ()) = tokio::join!(follower, writer);
    // Queued, pending, the wait's end, claimed, 53 notices, succeeded.
    assert_eq!(seen, (1..=58).collect::<Vec<_>>());
}

async fn a_follower_goes_on_where_it_was(db: Db) {
    let core = db.core().await;
    let (id, execution) = running(&core, 3).await;
    end(&core, &execution).await;
    assert_eq!(collect(&core, tenant('a'), &id, 6).await, [7, 8]);
    assert_eq!(collect(&core, admin(), &id, 8).await, [] as [u64; 0]);
    assert_eq!(collect(&core, admin(), &id, 999).await, [] as [u64; 0]);
}

async fn pages_are_bounded(db: Db) {
    let core = db.core().await;
    let (id, execution) = running(&core, 3).await;
    let page = feed::events_page(&core, &tenant('a'), &id, 1, 2).await.unwrap();
    let seqs: Vec<_> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!((seqs, page.more, page.complete), (vec![2, 3], true, false));
    let page = feed::events_page(&core, &tenant('a'), &id, 3, 9).await.unwrap();
    assert_eq!((page.events.len(), page.more, page.complete), (4, false, false));
    // Long events: a page is cut by size as well.
    for n in 0..3 {
        let text = "x".repeat(900_000);
        let lines =
            numbered(4 + 2 * n, &[Event::Notice { text: text.clone() }, Event::Notice { text }]);
        let (worker, now) = ("w1".parse().unwrap(), core.now());
        let source = EventSource::Worker;
        core.store.ingest(&execution, &worker, source, &lines, now, now).await.unwrap();
    }
    let page = feed::events_page(&core, &tenant('a'), &id, 7, 1_000).await.unwrap();
    assert_eq!((page.events.len(), page.more), (5, true));
    end(&core, &execution).await;
    let page = feed::events_page(&core, &tenant('a'), &id, 12, 1_000).await.unwrap();
    assert_eq!((page.events.len(), page.more, page.complete), (2, false, true));
}

async fn a_follower_of_a_foreign_run_sees_nothing(db: Db) {
    let core = db.core().await;
    let (id, _) = running(&core, 1).await;
    assert!(feed::follow(Arc::clone(&core), tenant('b'), id.clone(), 0).await.is_err());
    assert!(feed::events_page(&core, &tenant('b'), &id, 0, 9).await.is_err());
    assert!(runs::get(&core, &tenant('b'), &id).await.is_err());
}

async fn a_follower_ends_when_the_plane_drains(db: Db) {
    let core = db.core().await;
    let (id, _) = running(&core, 1).await;
    let followed = feed::follow(Arc::clone(&core), tenant('a'), id, 0).await.unwrap();
    pin_mut!(followed);
    assert_eq!(in_time("what is there", followed.next()).await.unwrap().unwrap().len(), 5);
    core.life.drain();
    assert!(in_time("the end", followed.next()).await.is_none());
}
