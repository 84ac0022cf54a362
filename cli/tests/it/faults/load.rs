//! Tenants at work: many runs asked for, some cancelled anywhere in their lives, some followed from beginning to end.

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    caller::{Caller, Wish},
    dice::Dice,
    transcript::{PROVIDER, Script},
    verdict::Entry,
};
use crate::images;

/// One run in so many is cancelled, one in so many followed.
const CANCEL_EVERY: u32 = 10;
const FOLLOW_EVERY: u32 = 5;

/// How long after its request a run may be cancelled, in milliseconds.
const CANCEL_MS: std::ops::Range<u64> = 0..15_000;

pub(super) struct Load {
    under_way: JoinSet<Entry>,
    ended: Vec<Entry>,
}

impl Load {
    /// Asks for `runs` runs, all at once.
    pub(super) async fn begin(caller: Caller, runs: u32, mut dice: Dice) -> Self {
        let environments = environments(&caller).await;
        let mut under_way = JoinSet::new();
        for nth in 0..runs {
            let environment = environments[nth as usize % environments.len()].clone();
            under_way.spawn(one_run(caller.clone(), environment, nth, dice.split()));
        }
        Self { under_way, ended: Vec::new() }
    }

    /// Waits until so many have ended. May be given up and begun anew.
    pub(super) async fn until_ended(&mut self, runs: u32) {
        while self.ended.len() < runs as usize {
            let ended = self.under_way.join_next().await.expect("that many were begun");
            self.ended.push(ended.unwrap());
        }
    }

    /// Those that have ended.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.ended
    }
}

/// What was found of many runs.
pub(super) struct Verdict {
    /// Everything that is wrong; nothing when all is well.
    pub(super) wrong: Vec<String>,
    /// Executions of all runs together.
    pub(super) attempts: u32,
}

/// Looks at each of these runs, and whether the tenant has these and no others.
pub(super) async fn verdict(caller: &Caller, entries: &[Entry]) -> Verdict {
    let (mut wrong, mut attempts) = (Vec::new(), 0);
    for entry in entries {
        let (item, events) = (caller.run(&entry.run).await, caller.events(&entry.run).await);
        attempts += item.attempt;
        let complaints = entry.complaints(&item, &events);
        if !complaints.is_empty() {
            wrong.extend(complaints);
            wrong.push(caller.told(&entry.run).await);
        }
    }
    let mut asked: Vec<&str> = entries.iter().map(|entry| entry.run.as_str()).collect();
    asked.sort_unstable();
    let mut known = caller.runs().await;
    known.sort_unstable();
    if asked != known {
        wrong.push(format!("{} runs were asked for, the plane knows {}", asked.len(), known.len()));
    }
    Verdict { wrong, attempts }
}

/// The same provider with and without a network of its own, tried again after whatever kills it.
async fn environments(caller: &Caller) -> Vec<String> {
    let again = json!({"max_attempts": 10, "on": [
        "worker_lost", "image_pull", "rejected", "platform", "setup", "agent", "provider", "oom",
    ]});
    let mut made = Vec::new();
    for network in ["none", "none", "none", "open"] {
        let more = json!({"network": network, "retry": again});
        made.push(caller.environment(images::busybox(), PROVIDER, more).await);
    }
    made
}

/// From the request to the end, with a cancel in between or a follower beside it.
async fn one_run(caller: Caller, environment: String, nth: u32, mut dice: Dice) -> Entry {
    let seed = u32::try_from(dice.below(2_147_483_646) + 1).unwrap();
    let lines = u32::try_from(200 + dice.below(300)).unwrap();
    let script = Script { seed, lines, wait: u32::try_from(10 + dice.below(40)).unwrap() };
    let key = format!("key-{nth}");
    let run = caller.submit(&environment, &script.prompt(), &key).await;
    let mut entry = Entry::new(run.clone(), script);
    if nth % CANCEL_EVERY == 7 {
        // Anywhere in its life.
        tokio::time::sleep(dice.millis(CANCEL_MS)).await;
        entry.wished = true;
        entry.cancelled = caller.cancel(&run).await == Wish::Accepted;
    }
    if nth.is_multiple_of(FOLLOW_EVERY) {
        entry.followed = Some(caller.follow(&run).await);
    }
    caller.ended(&run).await;
    entry
}
