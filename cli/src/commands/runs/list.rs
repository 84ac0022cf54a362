//! `ozma runs list`.

use clap::Args;
use protocol::{
    api::runs::{RunItem, RunList},
    run::RunState,
};
use service::clock::Clock;

use crate::{client::Client, failure::Failure, table::Table, term::Term, text::duration};

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Only those in this state, such as INPROGRESS (repeatable)
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<RunState>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn state(text: &str) -> Result<RunState, String> {
    text.to_uppercase()
        .parse()
        .map_err(|_| format!("must be one of {}", RunState::ALL.map(RunState::as_str).join(", ")))
}

pub(crate) async fn list(client: &Client, args: ListArgs, term: &mut Term) -> Result<(), Failure> {
    let mut query = vec![("limit", args.limit.to_string()), ("sort_by", "created_at".to_owned())];
    query.extend(args.state.iter().map(|state| ("state", state.to_string())));
    let list: RunList = client.get("/api/v1/agent/runs", &query).await?;
    if args.json {
        return Ok(term.json(&list)?);
    }
    if list.runs.is_empty() {
        term.note("no runs; `ozma run \"…\"` makes one");
        return Ok(());
    }
    let now_ms = Clock::system().now_ms();
    let mut table = Table::new(&["RUN", "STATE", "AGE", "TOOK", "TITLE"]);
    for run in &list.runs {
        let age = duration(since(now_ms, run));
        table.row(&[run.run_id.to_string(), standing(run), age, took(run), run.title.clone()]);
    }
    term.table(&table)?;
    if list.page_info.has_next_page {
        term.note("there are more; -n shows more of them");
    }
    Ok(())
}

fn since(now_ms: i64, run: &RunItem) -> u64 {
    u64::try_from(now_ms - run.created_at.as_ms()).unwrap_or(0)
}

fn standing(run: &RunItem) -> String {
    if run.cancelling { format!("{} (cancelling)", run.state) } else { run.state.to_string() }
}

/// The sum of the phases but the waiting, or a dash before any.
fn took(run: &RunItem) -> String {
    let queued = protocol::event::Phase::Queued;
    let worked: u64 = run.phases.iter().filter(|(p, _)| **p != queued).map(|(_, ms)| ms).sum();
    if worked == 0 { "-".to_owned() } else { duration(worked) }
}
