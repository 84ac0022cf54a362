//! The queue on both databases: turns, limits, wishes, priorities, declines and cancels, counted and not timed.

use std::{collections::BTreeMap, time::Duration};

use control_plane::{
    core::Settings,
    feed,
    runs::{self, CancelError, NewRun},
    scope::Scope,
    store::{Assignment, Claimant, Limits, Report},
};
use protocol::{failure::FailureReason, ids::RunId, run::RunState};
use service::clock::Clock;

use crate::{
    base::{Db, START, admin, on_both, prompt, settings, submit, tenant},
    step::{
        claim, claim_for, claim_up_to, claimant, claimed, failed, kinds, report, state, succeeded,
    },
};

on_both!(
    a_flood_of_one_tenant_does_not_hold_up_another,
    priority_goes_before_age_within_a_tenant_only,
    tags_and_names_are_respected,
    many_wishes_of_one_tenant_are_all_seen,
    two_planes_together_keep_to_the_limits,
    a_limit_of_its_own_goes_before_the_planes,
    a_batch_is_claimed_whole_and_told_in_order,
    what_nobody_takes_is_tried_less_and_less_and_tells_little,
    a_cancel_and_a_requeue_at_once_end_in_cancelled,
    a_cancel_and_a_claim_at_once_agree,
    a_cancelled_attempt_is_asked_and_not_the_next_one,
);

/// So many runs of one tenant, one after another.
async fn submit_many(core: &control_plane::core::Core, scope: &Scope, count: usize) -> Vec<RunId> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(submit(core, scope, &n.to_string()).await);
        core.clock.advance(Duration::from_millis(1));
    }
    ids
}

fn letters(claimed: &[Assignment]) -> String {
    claimed.iter().map(|run| run.owner.as_str().chars().next().unwrap()).collect()
}

async fn a_flood_of_one_tenant_does_not_hold_up_another(db: Db) {
    let core = db.core().await;
    submit_many(&core, &tenant('a'), 100).await;
    let mut running = claim_up_to(&core, 2).await;
    assert_eq!(letters(&running), "aa");
    submit(&core, &tenant('b'), "the only one").await;
    // One slot comes free: it is the other's, a hundred or not.
    report(&core, &running.remove(0), succeeded()).await;
    running.extend(claim_up_to(&core, 2).await);
    assert_eq!(letters(&running), "ab");

    // And as long as both wait, both get the same.
    submit_many(&core, &tenant('b'), 10).await;
    let mut order = String::new();
    for _ in 0..10 {
        report(&core, &running.remove(0), succeeded()).await;
        let next = claim_up_to(&core, 2).await;
        order += &letters(&next);
        running.extend(next);
    }
    assert_eq!(order.len(), 10);
    let of = |letter| order.chars().filter(|one| *one == letter).count();
    assert!(of('a').abs_diff(of('b')) <= 1, "{order}");
}

async fn priority_goes_before_age_within_a_tenant_only(db: Db) {
    let core = db.core().await;
    let wish = |text: &str, priority, tags: &[&str]| NewRun {
        priority,
        worker_tags: Some(tags.iter().map(ToString::to_string).collect()),
        ..prompt(text)
    };
    for (letter, new) in [
        ('a', wish("late", 0, &[])),
        ('a', wish("tagged", 5, &["gpu"])),
        ('a', wish("first", 9, &[])),
        ('b', wish("low", -100, &[])),
    ] {
        runs::submit(&core, &tenant(letter), new).await.unwrap();
        core.clock.advance(Duration::from_millis(1));
    }
    let tagged = Claimant { tags: vec!["gpu".to_owned()], ..claimant(9) };
    let order: Vec<_> =
        claim_for(&core, &[tagged]).await.into_iter().map(|run| run.prompt).collect();
    assert_eq!(order, ["first", "low", "tagged", "late"]);
}

async fn tags_and_names_are_respected(db: Db) {
    let core = db.core().await;
    let wish = |text: &str, host: Option<&str>, tags: &[&str]| NewRun {
        worker_host: host.map(str::to_owned),
        worker_tags: Some(tags.iter().map(ToString::to_string).collect()),
        ..prompt(text)
    };
    for new in [
        wish("both", None, &["gpu", "eu"]),
        wish("gpu", None, &["gpu"]),
        wish("named", Some("w2"), &[]),
        wish("named and tagged", Some("w1"), &["gpu"]),
        wish("any", None, &[]),
    ] {
        runs::submit(&core, &tenant('a'), new).await.unwrap();
    }
    let worker = |id: &str, tags: &[&str]| Claimant {
        worker_id: id.parse().unwrap(),
        instance_id: id.to_owned(),
        tags: tags.iter().map(ToString::to_string).collect(),
        capacity: 9,
        most: 9,
    };
    let workers = [worker("w1", &["eu"]), worker("w2", &["gpu"])];
    let mut got: BTreeMap<String, String> = BTreeMap::new();
    for run in claim_for(&core, &workers).await {
        got.insert(run.prompt, workers[run.claimant].worker_id.to_string());
    }
    assert_eq!(got["gpu"], "w2");
    assert_eq!(got["named"], "w2");
    assert!(got.contains_key("any"));
    assert_eq!(got.len(), 3, "{got:?}");
}

async fn many_wishes_of_one_tenant_are_all_seen(db: Db) {
    let plane = db.plane().await;
    for n in 0..200 {
        let new = NewRun { worker_host: Some(format!("h{n:03}")), ..prompt("x") };
        runs::submit(&plane.core, &tenant('a'), new).await.unwrap();
    }
    for host in ["h007", "h100", "h199"] {
        let mut worker = plane.worker(host, 1).await;
        let spec = worker.next_assignment().await.spec.unwrap();
        assert_eq!(spec.prompt, "x");
    }
    plane.stop().await;
}

async fn two_planes_together_keep_to_the_limits(db: Db) {
    let few = Settings { max_running: 5, ..settings() };
    let (one, two) = (
        db.core_with(Clock::by_hand(START), few.clone()).await,
        db.core_with(Clock::by_hand(START), few).await,
    );
    for letter in ['a', 'b', 'c'] {
        submit_many(&one, &tenant(letter), 20).await;
    }
    // Each plane asks again and again, for a worker of its own and for one that is connected to both.
    let claims = (0..8).map(|n| {
        let core = if n % 2 == 0 { &one } else { &two };
        async move {
            let shared = Claimant { instance_id: "shared".to_owned(), ..claimant(4) };
            let own = Claimant { instance_id: format!("own{n}"), ..claimant(3) };
            let mut got = Vec::new();
            for _ in 0..4 {
                let claimants = [shared.clone(), own.clone()];
                for run in claim_for(core, &claimants).await {
                    let instance = claimants[run.claimant].instance_id.clone();
                    got.push((run.run_id.clone(), run.owner.to_string(), instance));
                }
            }
            got
        }
    });
    let all = futures_util::future::join_all(claims).await.concat();
    let count = |pick: &dyn Fn(&(RunId, String, String)) -> String| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for one in &all {
            *counts.entry(pick(one)).or_default() += 1;
        }
        counts
    };
    let by_owner = count(&|one| one.1.clone());
    assert_eq!(by_owner.values().copied().collect::<Vec<_>>(), [5, 5, 5]);
    for (instance, n) in count(&|one| one.2.clone()) {
        assert!(n <= if instance == "shared" { 4 } else { 3 }, "{instance} got {n}");
    }
    assert!(count(&|one| one.0.to_string()).values().all(|&n| n == 1), "claimed twice");
}

async fn a_limit_of_its_own_goes_before_the_planes(db: Db) {
    let one = Settings { max_running: 1, max_queued: 3, ..settings() };
    let core = db.core_with(Clock::by_hand(START), one).await;
    let (ann, ben) = (tenant('a'), tenant('b'));
    let more = Limits { max_queued: Some(0), max_running: Some(2) };
    core.store.set_limits(ann.owner(), more, START).await.unwrap();
    submit_many(&core, &ann, 5).await;
    submit_many(&core, &ben, 3).await;
    let full = runs::submit(&core, &ben, prompt("x")).await;
    assert!(matches!(full, Err(runs::SubmitError::QueueFull(3))));
    assert_eq!(letters(&claim_up_to(&core, 9).await), "aba");
    assert!(claim_up_to(&core, 9).await.is_empty(), "both have what they may");

    let listed = core.store.tenants("", 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|row| (row.queued, row.running, row.limits)).collect();
    assert_eq!(listed, [(3, 2, more), (2, 1, Limits::default())]);
    assert_eq!(core.store.tenants(ann.owner().as_str(), 10).await.unwrap().len(), 1);

    core.store.set_limits(ann.owner(), Limits::default(), START).await.unwrap();
    core.store
        .set_limits(ben.owner(), Limits { max_running: Some(0), ..more }, START)
        .await
        .unwrap();
    assert_eq!(letters(&claim_up_to(&core, 9).await), "bb", "0 is no bound");
    core.store.clear_limits(ben.owner()).await.unwrap();
    assert_eq!(core.store.tenant(ben.owner()).await.unwrap().limits, Limits::default());
}

async fn a_batch_is_claimed_whole_and_told_in_order(db: Db) {
    let core = db.core().await;
    let ids = submit_many(&core, &tenant('a'), 40).await;
    let workers: Vec<_> =
        (0..4).map(|n| Claimant { instance_id: format!("i{n}"), ..claimant(10) }).collect();
    let claimed = claim_for(&core, &workers).await;
    let order: Vec<_> = claimed.iter().map(|run| run.run_id.clone()).collect();
    assert_eq!(order, ids, "oldest first");
    for (n, run) in claimed.iter().enumerate() {
        assert_eq!((run.attempt, run.claimant), (1, n % 4), "spread over all of them");
        let row = core.store.execution(&run.execution_id).await.unwrap().unwrap();
        assert_eq!((row.attempt, row.lease_expires_at), (1, core.now() + 30_000));
        assert_eq!(kinds(&core, &run.run_id).await, ["state", "state"]);
    }
    let page = feed::events_page(&core, &admin(), &ids[0], 0, 10).await.unwrap();
    let told: serde_json::Value = serde_json::from_str(page.events[1].data.get()).unwrap();
    assert_eq!((&told["state"], &told["worker_id"]), (&"PENDING".into(), &"w1".into()));
}

async fn what_nobody_takes_is_tried_less_and_less_and_tells_little(db: Db) {
    let slow = Settings { retry_wait: Duration::from_secs(2), ..settings() };
    let core = db.core_with(Clock::by_hand(START), slow).await;
    let id = submit(&core, &tenant('a'), "x").await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let run = claim(&core).await;
        report(&core, &run, Report::Declined { message: "full".to_owned() }).await;
        let mut waited = 0;
        while claim_up_to(&core, 0).await.is_empty() {
            let standing = core.store.standpoint(&admin(), &id).await.unwrap();
            if standing.not_before <= core.now() {
                break;
            }
            waited += standing.not_before - core.now();
            core.clock
                .advance(Duration::from_millis((standing.not_before - core.now()).unsigned_abs()));
        }
        waits.push(waited);
    }
    assert!(waits[0] <= 2_000 && waits[3] >= 8_000, "{waits:?}");
    assert!(waits.iter().all(|&wait| wait <= 60_000) && waits[19] == 60_000, "{waits:?}");
    let told = kinds(&core, &id).await.len();
    assert_eq!(told, 11, "queued, then five times handed over and back");
    // It is taken in the end, and counts as its first attempt; from then on everything is told again.
    let run = claim(&core).await;
    assert_eq!(run.attempt, 1);
    report(&core, &run, claimed(&core)).await;
    report(&core, &run, succeeded()).await;
    assert_eq!(state(&core, &id).await, RunState::Succeeded);
    assert_eq!(kinds(&core, &id).await.len(), told + 3);
}

async fn a_cancel_and_a_requeue_at_once_end_in_cancelled(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    for _ in 0..20 {
        let id = submit(&core, &ann, "x").await;
        let run = claim(&core).await;
        report(&core, &run, claimed(&core)).await;
        let (cancel, _) = tokio::join!(
            runs::cancel(&core, &ann, &id),
            report(&core, &run, failed(FailureReason::WorkerLost))
        );
        cancel.unwrap();
        assert_eq!(state(&core, &id).await, RunState::Cancelled);
        assert!(claim_up_to(&core, 9).await.is_empty(), "there is no second attempt");
    }
}

async fn a_cancel_and_a_claim_at_once_agree(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    for _ in 0..20 {
        let id = submit(&core, &ann, "x").await;
        let (cancel, mut got) =
            tokio::join!(runs::cancel(&core, &ann, &id), claim_up_to(&core, 100));
        match cancel {
            Ok(()) => {
                assert!(got.is_empty(), "cancelled, and nobody was handed it");
                assert_eq!(state(&core, &id).await, RunState::Cancelled);
            }
            Err(CancelError::Pending) => {
                let run = got.remove(0);
                assert_eq!(run.run_id, id);
                report(&core, &run, claimed(&core)).await;
                runs::cancel(&core, &ann, &id).await.unwrap();
                report(&core, &run, failed(FailureReason::Unknown)).await;
                assert_eq!(state(&core, &id).await, RunState::Cancelled);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

async fn a_cancelled_attempt_is_asked_and_not_the_next_one(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    let id = submit(&core, &ann, "x").await;
    let first = claim(&core).await;
    report(&core, &first, claimed(&core)).await;
    report(&core, &first, failed(FailureReason::ImagePull)).await;
    let second = claim(&core).await;
    report(&core, &second, claimed(&core)).await;
    runs::cancel(&core, &ann, &id).await.unwrap();
    let asked = core.store.calls().await.unwrap().cancels;
    let asked: Vec<_> = asked.iter().map(|call| &call.execution_id).collect();
    assert_eq!(asked, [&second.execution_id]);
    report(&core, &second, failed(FailureReason::ImagePull)).await;
    assert_eq!(state(&core, &id).await, RunState::Cancelled);
    assert!(core.store.calls().await.unwrap().cancels.is_empty());
}
