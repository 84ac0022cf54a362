//! Each answer to why a run waits, and which comes first.

use std::collections::BTreeSet;

use super::*;
use crate::placement::Placement;

fn tags(of: &[&str]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

fn run(owner: &str, host: Option<&str>, wished: &[&str]) -> Standpoint {
    Standpoint {
        owner: owner.parse().unwrap(),
        state: RunState::Queued,
        cancelling: false,
        priority: 0,
        placement: placement(host, wished),
        created_at: 0,
        queued_at: 0,
        updated_at: 0,
        not_before: 0,
        queue_until: None,
        attempt: 0,
        declines: 0,
        reason: None,
        worker_id: None,
        started_at: None,
        ended_at: None,
        pinned: false,
    }
}

fn placement(host: Option<&str>, wished: &[&str]) -> Placement {
    let worker_tags: BTreeSet<_> = tags(wished).into_iter().collect();
    Placement { worker_host: host.map(str::to_owned), worker_tags }
}

fn worker(id: &str, has: &[&str], capacity: u32, busy: u32) -> Process {
    Process { worker_id: id.to_owned(), tags: tags(has), capacity, busy, draining: false }
}

fn contender(owner: &str, placement: Placement, waiting: u64) -> Contender {
    Contender { owner: owner.to_owned(), placement, waiting }
}

fn fleet(processes: Vec<Process>, active: &[(&str, u32)]) -> Fleet {
    let active = active.iter().map(|&(owner, n)| (owner.to_owned(), n)).collect();
    Fleet { processes, active, limits: BTreeMap::new() }
}

fn answer(run: &Standpoint, fleet: &Fleet, queue: &Queue) -> WhyView {
    waiting(&"r".parse().unwrap(), run, fleet, queue, 0)
}

#[test]
fn only_those_count_who_want_the_same_slots() {
    let fleet = fleet(vec![worker("g", &["gpu"], 2, 2), worker("w", &[], 8, 0)], &[("a", 1)]);
    let queue = Queue {
        own: vec![contender("a", placement(None, &["gpu"]), 2)],
        others: vec![
            contender("b", placement(None, &["gpu"]), 9),
            contender("c", placement(Some("w"), &[]), 9),
            contender("d", placement(None, &[]), 1),
        ],
        max_running: None,
    };
    let view = answer(&run("a", None, &["gpu"]), &fleet, &queue);
    assert_eq!(view.code, WaitCode::WorkersFull);
    assert_eq!((view.slots, view.slots_taken), (Some(2), Some(2)));
    // Its turn is its tenant's fourth: three of b's and the one of d come before, c's go elsewhere.
    assert_eq!((view.ahead_own, view.ahead_others), (Some(2), Some(4)));
}

#[test]
fn another_tenants_limit_keeps_its_runs_from_being_ahead() {
    let mut fleet = fleet(vec![worker("w", &[], 4, 4)], &[("a", 3), ("b", 1)]);
    fleet.limits.insert("b".to_owned(), 1);
    let others = vec![contender("b", placement(None, &[]), 50)];
    let queue = Queue { own: Vec::new(), others, max_running: None };
    assert_eq!(answer(&run("a", None, &[]), &fleet, &queue).ahead_others, Some(0));
}

#[test]
fn tags_that_nobody_has_together_are_named_all() {
    let fleet = fleet(vec![worker("g", &["gpu"], 1, 0), worker("e", &["eu"], 1, 0)], &[]);
    let queue = Queue { own: Vec::new(), others: Vec::new(), max_running: None };
    let view = answer(&run("a", None, &["eu", "gpu"]), &fleet, &queue);
    assert_eq!((view.code, view.missing_tags), (WaitCode::NoWorkerWithTags, tags(&["eu", "gpu"])));
    let view = answer(&run("a", Some("g"), &["eu", "gpu"]), &fleet, &queue);
    assert_eq!((view.code, view.missing_tags), (WaitCode::NoWorkerWithTags, tags(&["eu"])));
    assert_eq!(answer(&run("a", Some("g"), &[]), &fleet, &queue).code, WaitCode::Next);
}
