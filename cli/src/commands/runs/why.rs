//! `ozma runs why`: what a run waits for.

use protocol::{api::why::WhyView, ids::RunId};

use crate::{
    client::Client,
    failure::Failure,
    term::{Style, Term},
    text::printable,
};

pub(crate) async fn why(
    client: &Client,
    run: &RunId,
    json: bool,
    term: &mut Term,
) -> Result<(), Failure> {
    let view: WhyView = client.get(&format!("/api/v1/agent/runs/{run}/why"), &[]).await?;
    if json {
        return Ok(term.json(&view)?);
    }
    term.line(&format!("{}: {}", view.state, printable(&view.message)))?;
    for (name, value) in facts(&view) {
        let name = term.paint(Style::Dim, &format!("{name:<14}"));
        term.line(&format!("{name}{}", printable(&value)))?;
    }
    Ok(())
}

fn facts(view: &WhyView) -> Vec<(&'static str, String)> {
    let of = |n: Option<u32>, most: Option<u32>| Some((n?, most?));
    let waits = view.ahead_own.is_some();
    let facts = [
        ("since", view.since.map(|at| at.to_string())),
        ("tried again", view.until.map(|at| at.to_string())),
        ("waits until", view.queue_until.map(|at| format!("{at}, at the longest"))),
        ("attempt", view.attempt.filter(|_| waits).map(|n| format!("{n} so far"))),
        (
            "slots",
            of(view.slots_taken, view.slots).map(|(n, all)| format!("{n} of {all} are taken")),
        ),
        (
            "its tenant",
            of(view.running, view.max_running).map(|(n, all)| format!("runs {n} of {all}")),
        ),
        (
            "ahead",
            view.ahead_own
                .zip(view.ahead_others)
                .map(|(own, others)| format!("{own} of its own, {others} of others")),
        ),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
