//! Why a run does not go on: the first thing in its way, by the order dispatch works in, with the numbers to it. It
//! looks at the whole database, not at this plane's sockets, and decides nothing.

use std::collections::BTreeMap;

use protocol::{
    api::{
        time::Timestamp,
        why::{WaitCode, WhyView},
    },
    ids::RunId,
    run::RunState,
};

use crate::{
    core::Core,
    link,
    scope::Scope,
    store::{Contender, Fleet, Process, Standpoint, StoreError, bounded},
};

/// Answers for a run of the caller's.
pub async fn why(core: &Core, scope: &Scope, id: &RunId) -> Result<WhyView, StoreError> {
    let now = core.now();
    let run = core.store.standpoint(scope, id).await?;
    if run.state != RunState::Queued {
        return Ok(under_way_or_over(id, &run));
    }
    let fleet = core.store.fleet(now - link::SEEN_FOR_MS).await?;
    let queue = Queue {
        own: core.store.own_ahead(id, &run, now).await?,
        others: core.store.others_waiting(&run.owner, now).await?,
        max_running: bounded(core.settings.max_running),
    };
    Ok(waiting(id, &run, &fleet, &queue, now))
}

/// Who else waits.
struct Queue {
    own: Vec<Contender>,
    others: Vec<Contender>,
    /// Of tenants without a limit of their own.
    max_running: Option<u32>,
}

fn view(id: &RunId, run: &Standpoint, code: WaitCode, message: String) -> WhyView {
    WhyView {
        run_id: id.clone(),
        state: run.state,
        code,
        message,
        since: Some(Timestamp(run.updated_at)),
        until: None,
        queue_until: None,
        worker_id: run.worker_id.clone(),
        attempt: (run.attempt > 0).then_some(run.attempt),
        reason: run.reason,
        missing_tags: Vec::new(),
        slots: None,
        slots_taken: None,
        running: None,
        max_running: None,
        ahead_own: None,
        ahead_others: None,
    }
}

fn under_way_or_over(id: &RunId, run: &Standpoint) -> WhyView {
    let worker = run.worker_id.as_ref().map_or("a worker".to_owned(), |id| format!("worker {id}"));
    let (code, message, since) = match run.state {
        RunState::Pending => {
            let message = format!("it is being handed to {worker}, which has not answered yet");
            (WaitCode::HandingOver, message, run.updated_at)
        }
        state if state.is_terminal() => {
            (WaitCode::Over, format!("it is over: {state}"), run.ended_at.unwrap_or(run.updated_at))
        }
        _ if run.cancelling => (
            WaitCode::Stopping,
            format!("a cancel was asked for; {worker} is stopping it"),
            run.updated_at,
        ),
        RunState::Claimed => {
            (WaitCode::Running, format!("{worker} took it and prepares it"), run.updated_at)
        }
        _ => {
            let since = run.started_at.unwrap_or(run.updated_at);
            (WaitCode::Running, format!("it runs on {worker}"), since)
        }
    };
    WhyView { since: Some(Timestamp(since)), ..view(id, run, code, message) }
}

fn waiting(id: &RunId, run: &Standpoint, fleet: &Fleet, queue: &Queue, now: i64) -> WhyView {
    let fitting: Vec<&Process> = fitting(run, fleet).collect();
    let taking: Vec<&Process> = fitting.iter().copied().filter(|one| !one.draining).collect();
    let slots = taking.iter().fold(0, |sum: u32, one| sum.saturating_add(one.capacity));
    let taken =
        taking.iter().fold(0, |sum: u32, one| sum.saturating_add(one.busy.min(one.capacity)));
    let running = fleet.active.get(run.owner.as_str()).copied().unwrap_or_default();
    let limit = limit_of(run.owner.as_str(), fleet, queue);
    let (own, others) = ahead(run, fleet, queue, &taking);
    let (code, message) = cause(run, fleet, &fitting, &taking, now).unwrap_or_else(|| {
        if let Some(limit) = limit.filter(|&limit| running >= limit) {
            let message = format!(
                "its tenant has {running} of {limit} runs under way; {own} of its own are ahead"
            );
            return (WaitCode::TenantLimit, message);
        }
        let ahead = match own + others {
            0 => "nobody is ahead".to_owned(),
            _ => format!("ahead are {own} of its tenant's runs and {others} of others'"),
        };
        if taken >= slots {
            let host = run.placement.worker_host.as_deref().filter(|_| run.pinned);
            let pinned = host.map_or(String::new(), |host| {
                format!("; it waits for worker {host}, which keeps its conversation")
            });
            let message =
                format!("{taken} of {slots} slots it may have are taken; {ahead}{pinned}");
            (WaitCode::WorkersFull, message)
        } else if own + others > 0 {
            (
                WaitCode::RunsAhead,
                format!("{taken} of {slots} slots it may have are taken; {ahead}"),
            )
        } else {
            (WaitCode::Next, "it is next and a slot is free".to_owned())
        }
    });
    let retrying = matches!(code, WaitCode::WaitingToRetry | WaitCode::Declined);
    WhyView {
        since: Some(Timestamp(run.queued_at)),
        until: retrying.then_some(Timestamp(run.not_before)),
        queue_until: run.queue_until.map(Timestamp),
        missing_tags: if code == WaitCode::NoWorkerWithTags {
            missing(run, fleet)
        } else {
            Vec::new()
        },
        slots: Some(slots),
        slots_taken: Some(taken),
        running: Some(running),
        max_running: limit,
        ahead_own: Some(own),
        ahead_others: Some(others),
        ..view(id, run, code, message)
    }
}

/// What keeps it from any slot at all, before there is talk of turns.
fn cause(
    run: &Standpoint,
    fleet: &Fleet,
    fitting: &[&Process],
    taking: &[&Process],
    now: i64,
) -> Option<(WaitCode, String)> {
    if run.not_before > now {
        return Some(later(run, now));
    }
    if fleet.processes.is_empty() && !run.pinned {
        return Some((WaitCode::NoWorker, "no worker is connected".to_owned()));
    }
    let host = run.placement.worker_host.as_deref();
    if let Some(host) = host.filter(|host| fleet.processes.iter().all(|one| one.worker_id != *host))
    {
        let message = if run.pinned {
            // Nobody knows whether it comes back, and nobody else can go on.
            format!(
                "it goes on with a conversation that is kept on worker {host}, which is not connected: \
                 start that worker, or cancel this run and begin a new one"
            )
        } else {
            format!("it asks for worker {host}, which is not connected")
        };
        return Some((WaitCode::WorkerHostNotConnected, message));
    }
    if fitting.is_empty() {
        let tags = missing(run, fleet).join(", ");
        let whose = host.map_or("no connected worker has".to_owned(), |host| {
            format!("worker {host}, which it asks for, does not have")
        });
        return Some((WaitCode::NoWorkerWithTags, format!("{whose} the tags it asks for: {tags}")));
    }
    if taking.is_empty() {
        let n = fitting.len();
        let message = match host.filter(|_| run.pinned) {
            Some(host) => format!(
                "it goes on with a conversation that is kept on worker {host}, which is draining and takes nothing new"
            ),
            None => format!("all workers it may go to ({n}) are draining and take nothing new"),
        };
        return Some((WaitCode::WorkersDraining, message));
    }
    None
}

fn later(run: &Standpoint, now: i64) -> (WaitCode, String) {
    let secs = (run.not_before - now + 999) / 1_000;
    if run.declines > 0 {
        let n = run.declines;
        let message = format!("{n} times a worker did not take it; it is tried again in {secs} s");
        return (WaitCode::Declined, message);
    }
    let reason = run.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let attempt = run.attempt;
    let message = format!("attempt {attempt} failed{reason}; the next one may begin in {secs} s");
    (WaitCode::WaitingToRetry, message)
}

fn fitting<'a>(run: &'a Standpoint, fleet: &'a Fleet) -> impl Iterator<Item = &'a Process> {
    fleet.processes.iter().filter(|one| run.placement.fits(&one.worker_id, &one.tags))
}

/// The tags that none of the workers it may go to by name has; all of them, if each is there.
fn missing(run: &Standpoint, fleet: &Fleet) -> Vec<String> {
    let host = run.placement.worker_host.as_deref();
    let named: Vec<_> = fleet
        .processes
        .iter()
        .filter(|one| host.is_none_or(|host| host == one.worker_id))
        .collect();
    let all = &run.placement.worker_tags;
    let nowhere = |tag: &&String| named.iter().all(|one| !one.tags.contains(tag));
    let missing: Vec<_> = all.iter().filter(nowhere).cloned().collect();
    if missing.is_empty() { all.iter().cloned().collect() } else { missing }
}

fn limit_of(owner: &str, fleet: &Fleet, queue: &Queue) -> Option<u32> {
    fleet.limits.get(owner).map_or(queue.max_running, |&own| bounded(own))
}

/// How many runs come before it that want the same slots: its tenant's by priority and age, and of every other
/// tenant as many as have their turn before it has its own.
fn ahead(run: &Standpoint, fleet: &Fleet, queue: &Queue, taking: &[&Process]) -> (u64, u64) {
    let competes = |one: &&Contender| {
        taking.iter().any(|worker| one.placement.fits(&worker.worker_id, &worker.tags))
    };
    let own: u64 = queue.own.iter().filter(competes).map(|one| one.waiting).sum();
    let active = |owner: &str| u64::from(fleet.active.get(owner).copied().unwrap_or_default());
    let turn = active(run.owner.as_str()) + own;
    let mut waiting: BTreeMap<&str, u64> = BTreeMap::new();
    for one in queue.others.iter().filter(competes) {
        *waiting.entry(&one.owner).or_default() += one.waiting;
    }
    let others = waiting.into_iter().map(|(owner, waiting)| {
        let may = limit_of(owner, fleet, queue).map_or(u64::MAX, u64::from);
        waiting.min(turn.min(may).saturating_sub(active(owner)))
    });
    (own, others.sum())
}

#[cfg(test)]
mod tests;
