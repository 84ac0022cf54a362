use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Without a bound on one plan.
fn plan(lanes: &[Lane], loads: &BTreeMap<String, Load>, workers: &[Slots]) -> Plan {
    super::plan(lanes, loads, workers, usize::MAX)
}

fn runs(of: &str, wishes: &[(i64, i64)]) -> Vec<Waiting> {
    let each = wishes.iter().enumerate();
    each.map(|(n, &(priority, since))| Waiting { id: format!("{of}{n:04}"), priority, since })
        .collect()
}

fn lane(owner: &str, runs: Vec<Waiting>) -> Lane {
    Lane { owner: owner.to_owned(), placement: Placement::default(), runs, more: false }
}

fn lane_for(owner: &str, host: Option<&str>, tags: &[&str], runs: Vec<Waiting>) -> Lane {
    let placement = Placement {
        worker_host: host.map(str::to_owned),
        worker_tags: tags.iter().map(ToString::to_string).collect(),
    };
    Lane { placement, ..lane(owner, runs) }
}

fn worker(id: &str, tags: &[&str], free: u32) -> Slots {
    let tags = tags.iter().map(ToString::to_string).collect();
    Slots { worker_id: id.to_owned(), tags, free }
}

fn loads(of: &[(&str, u32, Option<u32>)]) -> BTreeMap<String, Load> {
    let each = of.iter();
    each.map(|&(owner, active, limit)| (owner.to_owned(), Load { active, limit })).collect()
}

/// The plan as run ids with the worker each goes to.
fn told(plan: &Plan, lanes: &[Lane], workers: &[Slots]) -> Vec<String> {
    let told = plan
        .handovers
        .iter()
        .map(|at| format!("{}@{}", lanes[at.lane].runs[at.run].id, workers[at.worker].worker_id));
    told.collect()
}

#[test]
fn tenants_take_turns_and_the_one_with_less_under_way_is_first() {
    let lanes =
        [lane("a", runs("a", &[(0, 1), (0, 2), (0, 3), (0, 4)])), lane("b", runs("b", &[(0, 9)]))];
    let workers = [worker("w", &[], 3)];
    let none = BTreeMap::new();
    let order = |loads| told(&plan(&lanes, loads, &workers), &lanes, &workers);
    assert_eq!(order(&none), ["a0000@w", "b0000@w", "a0001@w"]);
    assert_eq!(order(&loads(&[("a", 5, None)])), ["b0000@w", "a0000@w", "a0001@w"]);
}

#[test]
fn within_a_tenant_priority_goes_before_age_over_all_its_lanes() {
    let lanes = [
        lane("a", runs("plain", &[(5, 10), (0, 1)])),
        lane_for("a", None, &["gpu"], runs("gpu", &[(7, 20), (5, 5)])),
    ];
    let workers = [worker("g", &["gpu"], 4)];
    let plan = plan(&lanes, &BTreeMap::new(), &workers);
    assert_eq!(
        told(&plan, &lanes, &workers),
        ["gpu0000@g", "gpu0001@g", "plain0000@g", "plain0001@g"]
    );
}

#[test]
fn a_run_goes_only_where_it_may_and_holds_up_nobody_who_may_go_elsewhere() {
    let lanes = [
        lane_for("a", Some("there"), &[], runs("named", &[(9, 1)])),
        lane_for("a", None, &["gpu", "eu"], runs("tagged", &[(8, 1)])),
        lane("a", runs("any", &[(0, 1)])),
    ];
    let workers = [worker("here", &["gpu"], 2)];
    let plan = plan(&lanes, &BTreeMap::new(), &workers);
    assert_eq!(told(&plan, &lanes, &workers), ["any0000@here"]);
    assert!(!plan.unfinished);
}

#[test]
fn a_limit_holds_and_the_slots_go_to_others() {
    let lanes = [lane("a", runs("a", &[(0, 1); 4])), lane("b", runs("b", &[(0, 2); 4]))];
    let workers = [worker("w", &[], 5)];
    let loads = loads(&[("a", 1, Some(2)), ("b", 0, Some(0))]);
    let plan = plan(&lanes, &loads, &workers);
    assert_eq!(told(&plan, &lanes, &workers), ["a0000@w"]);
}

#[test]
fn work_is_spread_over_the_emptiest() {
    let lanes = [lane("a", runs("a", &[(0, 1); 4]))];
    let workers = [worker("v", &[], 1), worker("w", &[], 3)];
    let plan = plan(&lanes, &BTreeMap::new(), &workers);
    assert_eq!(told(&plan, &lanes, &workers), ["a0000@w", "a0001@w", "a0002@v", "a0003@w"]);
}

#[test]
fn it_stops_where_it_does_not_know_what_comes_next() {
    let more = Lane { more: true, ..lane("a", runs("a", &[(0, 1)])) };
    let lanes = [more, lane("b", runs("b", &[(0, 2); 4]))];
    let workers = [worker("w", &[], 9)];
    let plan = plan(&lanes, &BTreeMap::new(), &workers);
    assert_eq!(told(&plan, &lanes, &workers), ["a0000@w", "b0000@w"]);
    assert!(plan.unfinished);
}

#[test]
fn a_plan_of_bounded_length_says_that_it_is_not_the_end() {
    let lanes = [lane("a", runs("a", &[(0, 1); 4]))];
    let workers = [worker("w", &[], 9)];
    let plan = super::plan(&lanes, &BTreeMap::new(), &workers, 3);
    assert_eq!((plan.handovers.len(), plan.unfinished), (3, true));
}

fn wishes() -> impl Strategy<Value = Vec<Waiting>> {
    proptest::collection::vec((-2_i64..3, 0_i64..50), 0..12).prop_map(|mut all| {
        all.sort_by_key(|&(priority, since)| (Reverse(priority), since));
        runs("", &all)
    })
}

fn some_tags() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(vec!["eu".to_owned(), "gpu".to_owned()], 0..=2)
}

/// Lanes with a name and a placement each their own, as the store gives them.
fn some_lanes() -> impl Strategy<Value = Vec<Lane>> {
    let host = proptest::option::weighted(0.2, "[wxyz]");
    let one = (proptest::sample::select(vec!["a", "b", "c", "d"]), host, some_tags(), wishes());
    proptest::collection::vec(one, 0..8).prop_map(|lanes| {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (n, (owner, worker_host, tags, mut runs)) in lanes.into_iter().enumerate() {
            let placement = Placement { worker_host, worker_tags: tags.into_iter().collect() };
            if seen.insert((owner, placement.clone())) {
                for run in &mut runs {
                    run.id = format!("{n}-{}", run.id);
                }
                all.push(Lane { owner: owner.to_owned(), placement, runs, more: false });
            }
        }
        all
    })
}

fn some_workers() -> impl Strategy<Value = Vec<Slots>> {
    let one = ("[wxy]", some_tags(), 0_u32..6).prop_map(|(worker_id, tags, free)| Slots {
        worker_id,
        tags,
        free,
    });
    proptest::collection::vec(one, 0..5)
}

fn some_loads() -> impl Strategy<Value = BTreeMap<String, Load>> {
    let load = (0_u32..5, proptest::option::of(0_u32..7))
        .prop_map(|(active, limit)| Load { active, limit });
    proptest::collection::btree_map("[abcd]", load, 0..5)
}

/// What a plan left: how many runs of a tenant it took, which are left over, and what is still free.
struct After {
    taken: BTreeMap<String, u32>,
    left: Vec<(usize, usize)>,
    free: Vec<u32>,
}

fn after(plan: &Plan, lanes: &[Lane], workers: &[Slots]) -> After {
    let mut free: Vec<u32> = workers.iter().map(|one| one.free).collect();
    let mut taken = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for at in &plan.handovers {
        free[at.worker] = free[at.worker].checked_sub(1).expect("never more than is free");
        *taken.entry(lanes[at.lane].owner.clone()).or_default() += 1;
        assert!(gone.insert((at.lane, at.run)), "one run, one worker");
    }
    let all = lanes.iter().enumerate();
    let all = all.flat_map(|(lane, one)| (0..one.runs.len()).map(move |run| (lane, run)));
    After { taken, left: all.filter(|at| !gone.contains(at)).collect(), free }
}

proptest! {
    #[test]
    fn every_handover_is_allowed(lanes in some_lanes(), loads in some_loads(), workers in some_workers()) {
        let plan = plan(&lanes, &loads, &workers);
        let after = after(&plan, &lanes, &workers);
        for at in &plan.handovers {
            let worker = &workers[at.worker];
            prop_assert!(lanes[at.lane].placement.fits(&worker.worker_id, &worker.tags));
        }
        for (owner, taken) in after.taken {
            let load = loads.get(&owner).copied().unwrap_or_default();
            prop_assert!(load.limit.is_none_or(|limit| load.active + taken <= limit));
        }
    }

    #[test]
    fn no_slot_idles_while_a_run_fits_it(lanes in some_lanes(), loads in some_loads(), workers in some_workers()) {
        let plan = plan(&lanes, &loads, &workers);
        let after = after(&plan, &lanes, &workers);
        prop_assert!(!plan.unfinished);
        for (lane, _) in after.left {
            let load = loads.get(&lanes[lane].owner).copied().unwrap_or_default();
            let taken = after.taken.get(&lanes[lane].owner).copied().unwrap_or_default();
            let allowed = load.limit.is_none_or(|limit| load.active + taken < limit);
            let place = workers.iter().zip(&after.free).any(|(worker, &free)| {
                free > 0 && lanes[lane].placement.fits(&worker.worker_id, &worker.tags)
            });
            prop_assert!(!(allowed && place), "{:?} could have gone somewhere", lanes[lane]);
        }
    }

    /// Whoever is left waiting for the same slots has no less under way than anybody who was served, but for one.
    #[test]
    fn turns_are_fair_within_one(counts in proptest::collection::vec((1_usize..40, 0_u32..6), 1..6), free in 1_u32..40) {
        let lanes: Vec<_> = counts.iter().enumerate()
            .map(|(n, &(waiting, _))| lane(&n.to_string(), runs(&n.to_string(), &vec![(0, 0); waiting])))
            .collect();
        let loads: BTreeMap<_, _> = counts.iter().enumerate()
            .map(|(n, &(_, active))| (n.to_string(), Load { active, limit: None })).collect();
        let workers = [worker("w", &[], free)];
        let plan = plan(&lanes, &loads, &workers);
        let after = after(&plan, &lanes, &workers);
        let total = |n: usize| counts[n].1 + after.taken.get(&n.to_string()).copied().unwrap_or_default();
        for &(waits, _) in &after.left {
            for n in 0..counts.len() {
                if after.taken.contains_key(&n.to_string()) {
                    prop_assert!(total(n) <= total(waits) + 1);
                }
            }
        }
    }

    /// With only the first runs of each lane known, planning in steps hands over the same runs in the same order.
    #[test]
    fn knowing_less_at_a_time_changes_nothing(lanes in some_lanes(), loads in some_loads(), workers in some_workers(), known in 1_usize..4) {
        let whole = plan(&lanes, &loads, &workers);
        let order = |plan: &Plan, lanes: &[Lane]| -> Vec<String> {
            plan.handovers.iter().map(|at| lanes[at.lane].runs[at.run].id.clone()).collect()
        };
        let (mut rest, mut loads, mut workers) = (lanes.clone(), loads, workers);
        let mut steps = Vec::new();
        loop {
            let view: Vec<_> = rest.iter().map(|lane| Lane {
                runs: lane.runs.iter().take(known).cloned().collect(),
                more: lane.runs.len() > known,
                ..lane.clone()
            }).collect();
            let step = plan(&view, &loads, &workers);
            steps.extend(order(&step, &view));
            for at in &step.handovers {
                loads.entry(view[at.lane].owner.clone()).or_default().active += 1;
                workers[at.worker].free -= 1;
            }
            let gone: BTreeSet<_> = steps.iter().collect();
            for lane in &mut rest {
                lane.runs.retain(|run| !gone.contains(&run.id));
            }
            if !step.unfinished {
                break;
            }
            prop_assert!(!step.handovers.is_empty(), "each step gets on");
        }
        prop_assert_eq!(steps, order(&whole, &lanes));
    }
}
