//! Leases under clocks that differ or are set, and under workers that vanish at the worst moment.

use std::{sync::Arc, time::Duration};

use control_plane::{
    core::Core,
    feed,
    link::Peer,
    reaper::{self, Watch},
    reports,
    runs::{self, NewRun},
    store::{Assignment, Claimant, Report},
    timeouts::TimeoutWishes,
};
use protocol::{
    event::EventSource,
    ids::{ExecutionId, RunId},
    link::{
        Events, FromWorker, Heartbeat, Hello, ReportAck, RunningExecution, TaskClaimed,
        TaskCompleted, TaskRejected, ToWorker,
    },
    run::RunState,
};
use service::clock::Clock;
use test_support::worker::{hello, numbered};

use crate::{
    base::{Db, START, admin, on_both, prompt, settings, submit, tenant},
    step::{INSTANCE, LEASE, claim_for, output, state, with_run, worker},
};

on_both!(
    a_clock_set_back_leaves_a_stock_workers_run_alone,
    a_clock_set_back_holds_no_worker_out,
    a_clock_set_back_does_not_change_which_execution_is_the_newest,
    a_clock_set_ahead_makes_nothing_that_runs_too_old,
    a_worker_that_dies_over_an_assignment_keeps_it_for_a_lease_and_no_longer,
    of_two_processes_of_one_worker_only_the_one_that_took_it_over_has_a_say,
);

const HOUR_MS: i64 = 3_600_000;

fn slots(peer: &Peer) -> Claimant {
    let connection = peer.connection();
    Claimant {
        worker_id: connection.worker_id.clone(),
        instance_id: connection.instance_id.clone(),
        tags: Vec::new(),
        capacity: 1,
        most: 1,
    }
}

async fn handed(core: &Core, peer: &Peer) -> Assignment {
    claim_for(core, &[slots(peer)]).await.pop().expect("a run to hand over")
}

fn took(run: &RunId) -> FromWorker {
    let (task_id, worker_id) = (run.clone(), worker());
    FromWorker::TaskClaimed(TaskClaimed { task_id, worker_id, execution_id: None })
}

fn done(run: &RunId, execution_id: Option<ExecutionId>) -> FromWorker {
    FromWorker::TaskCompleted(TaskCompleted {
        task_id: run.clone(),
        execution_id,
        message: "done".to_owned(),
        task_state: None,
        exit_code: Some(0),
        peak_memory_bytes: None,
        after: None,
    })
}

/// Any word shows that a stock worker lives.
fn a_word() -> FromWorker {
    FromWorker::Unknown("a word".to_owned())
}

async fn a_clock_set_back_leaves_a_stock_workers_run_alone(db: Db) {
    let core = db.core().await;
    let (mut peer, _frames) = Peer::open(core.clone(), worker(), None).await.unwrap();
    let id = submit(&core, &tenant('a'), "x").await;
    handed(&core, &peer).await;
    peer.hear(took(&id)).await.unwrap();
    let mut watch = Watch::new(&core);
    core.clock.jump(-HOUR_MS);
    for _ in 0..30 {
        peer.hear(a_word()).await.unwrap();
        reaper::round(&core, &mut watch).await.unwrap();
        core.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(state(&core, &id).await, RunState::Claimed);
}

async fn a_clock_set_back_holds_no_worker_out(db: Db) {
    let core = db.core().await;
    let (mut peer, _frames) = Peer::open(core.clone(), worker(), Some(&hello(1))).await.unwrap();
    submit(&core, &tenant('a'), "x").await;
    let run = handed(&core, &peer).await;
    let (task_id, execution_id) = (run.run_id, Some(run.execution_id));
    let reason = "not now".to_owned();
    let no = FromWorker::TaskRejected(TaskRejected { task_id, execution_id, reason });
    peer.hear(no).await.unwrap();
    assert!(!peer.connection().takes_work(core.now()));
    core.clock.jump(-HOUR_MS);
    core.clock.advance(Duration::from_mins(1));
    assert!(peer.connection().takes_work(core.now()), "it is held out for an hour");
}

async fn a_clock_set_back_does_not_change_which_execution_is_the_newest(db: Db) {
    let core = db.core().await;
    let (mut peer, _frames) = Peer::open(core.clone(), worker(), None).await.unwrap();
    let id = submit(&core, &tenant('a'), "x").await;
    let first = handed(&core, &peer).await;
    peer.hear(took(&id)).await.unwrap();
    reports::record(&core, &first.execution_id, None, &Report::Missing).await.unwrap();
    core.clock.jump(-HOUR_MS);
    core.store.rebase(core.now(), core.now()).await.unwrap();
    core.clock.advance(Duration::from_secs(1));
    handed(&core, &peer).await;
    peer.hear(took(&id)).await.unwrap();
    assert_eq!(
        state(&core, &id).await,
        RunState::Claimed,
        "the claim was taken for the first one's"
    );
    peer.hear(done(&id, None)).await.unwrap();
    assert_eq!(state(&core, &id).await, RunState::Succeeded);
}

async fn a_clock_set_ahead_makes_nothing_that_runs_too_old(db: Db) {
    let (core, run) = with_run(&db, RunState::Inprogress).await;
    let timeouts = TimeoutWishes { queue_secs: Some(600), ..TimeoutWishes::default() };
    let patient = NewRun { timeouts, ..prompt("wait for me") };
    let patient = runs::submit(&core, &tenant('a'), patient).await.unwrap().run_id;
    let alone = db.url.starts_with("sqlite");
    let mut watch = Watch::new(&core);
    // A machine that woke with a wrong clock, and was told the right time a month later.
    core.clock.jump(30 * 24 * HOUR_MS);
    for _ in 0..24 {
        let ids = std::slice::from_ref(&run.execution_id);
        core.store.renew(INSTANCE, ids, core.now() + LEASE).await.unwrap();
        reaper::round(&core, &mut watch).await.unwrap();
        core.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(state(&core, &run.run_id).await, RunState::Inprogress);
    // Of several planes the database's clock is the one that counts, and that one was not set.
    if alone {
        assert_eq!(state(&core, &patient).await, RunState::Queued);
    }
}

async fn a_worker_that_dies_over_an_assignment_keeps_it_for_a_lease_and_no_longer(db: Db) {
    let core = db.core().await;
    let (peer, _frames) = Peer::open(core.clone(), worker(), Some(&hello(1))).await.unwrap();
    let id = submit(&core, &tenant('a'), "x").await;
    handed(&core, &peer).await;
    peer.close().await;
    core.clock.advance(Duration::from_millis(LEASE.unsigned_abs()));
    reaper::pass(&core).await.unwrap();
    assert_eq!(state(&core, &id).await, RunState::Pending, "it may come back for a lease");
    core.clock.advance(Duration::from_secs(1));
    reaper::pass(&core).await.unwrap();
    let run = runs::get(&core, &admin(), &id).await.unwrap();
    assert_eq!((run.state, run.attempt), (RunState::Queued, 0), "nobody ran it");
}

/// A machine that was copied, state folder and all, and both copies go on with the same execution.
async fn of_two_processes_of_one_worker_only_the_one_that_took_it_over_has_a_say(db: Db) {
    let core = db.core().await;
    let (mut first, mut told) = Peer::open(core.clone(), worker(), Some(&hello(1))).await.unwrap();
    let id = submit(&core, &tenant('a'), "x").await;
    let run = handed(&core, &first).await;
    let execution_id = run.execution_id.clone();
    let says = |text: &str| {
        let (execution_id, source) = (execution_id.clone(), EventSource::Sidecar);
        FromWorker::Events(Events { execution_id, source, events: numbered(1, &[output(text)]) })
    };
    let held = RunningExecution { run_id: id.clone(), execution_id: execution_id.clone() };
    let copy = Hello { executions: vec![held], ..hello(1) };
    let (mut second, _frames) = Peer::open(core.clone(), worker(), Some(&copy)).await.unwrap();

    // What the one that lost it says changes nothing, and it is told to stop, for each of its words.
    while told.try_recv().is_some() {}
    let executions = vec![execution_id.clone()];
    let beat = Heartbeat { executions, free: 0, draining: false, disk: None };
    for word in [FromWorker::Heartbeat(beat), says("first"), done(&id, Some(execution_id.clone()))]
    {
        first.hear(word).await.unwrap();
        let answer = told.try_recv();
        let Some(ToWorker::Stop(ReportAck { execution_id: stopped })) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(stopped, execution_id);
    }
    assert_eq!(core.counters.superseded.get(), 3);
    assert_eq!(state(&core, &id).await, RunState::Claimed);

    second.hear(says("second")).await.unwrap();
    second.hear(done(&id, Some(execution_id.clone()))).await.unwrap();
    let page = feed::events_page(&core, &tenant('a'), &id, 0, 100).await.unwrap();
    let texts: Vec<_> = page.events.iter().map(|event| event.data.get().to_owned()).collect();
    assert!(texts.iter().any(|text| text.contains("second")), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("first")), "{texts:?}");
    assert_eq!(state(&core, &id).await, RunState::Succeeded);
}

/// Two planes on one database, the second one's clock this much ahead.
async fn planes(db: &Db, ahead_ms: i64) -> (Arc<Core>, Arc<Core>) {
    let one = db.core().await;
    let clock = Clock::by_hand(START + ahead_ms);
    (one, db.core_with(clock, settings()).await)
}

#[tokio::test]
async fn planes_whose_clocks_differ_do_not_take_each_others_runs() {
    let db = Db::postgres().await;
    let (slow, quick) = planes(&db, 15_000).await;
    // As each does when it starts, and every few seconds.
    for plane in [&slow, &quick] {
        plane.agree(START + 5_000);
    }
    assert_eq!(slow.now(), quick.now());
    let (mut peer, _frames) = Peer::open(slow.clone(), worker(), None).await.unwrap();
    let id = submit(&slow, &tenant('a'), "x").await;
    let run = handed(&slow, &peer).await;
    peer.hear(took(&id)).await.unwrap();
    let mut watches = [Watch::new(&slow), Watch::new(&quick)];
    for _ in 0..20 {
        let ids = std::slice::from_ref(&run.execution_id);
        slow.store.renew(&peer.connection().instance_id, ids, slow.now() + LEASE).await.unwrap();
        for (plane, watch) in [&slow, &quick].into_iter().zip(&mut watches) {
            plane.clock.advance(Duration::from_secs(4));
            reaper::round(plane, watch).await.unwrap();
        }
    }
    assert_eq!(state(&slow, &id).await, RunState::Claimed, "the quick one took it for lost");
    assert_eq!(quick.counters.clock_jumps.get(), 0);
    // A clock of its own that is set changes nothing for a plane that asks again.
    quick.clock.jump(HOUR_MS);
    quick.agree(slow.now());
    reaper::round(&quick, &mut watches[1]).await.unwrap();
    assert_eq!(quick.counters.clock_jumps.get(), 0);
}

#[tokio::test]
async fn the_time_is_the_databases() {
    let (file, server) = (Db::sqlite(), Db::postgres().await);
    assert_eq!(file.store().await.time().await.unwrap(), None);
    let core = server.core_with(Clock::system(), settings()).await;
    let said = core.store.time().await.unwrap().unwrap();
    assert!((said - core.clock.now_ms()).abs() < 60_000, "the same machine, the same clock");
}
