//! The report for people: tables on a terminal, or as Markdown for a document.

use super::{
    report::{Report, Row, thousands},
    stats::to_f64,
};
use crate::{
    failure::Failure,
    table::Table,
    term::{Style, Term},
};

/// One table: its heading and its rows, all as wide.
struct Grid {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn grids(report: &Report) -> Vec<Grid> {
    let grid = |values: Vec<String>, rows: Vec<Row>| {
        let mut heading = vec!["measure".to_owned(), "target".to_owned()];
        heading.extend(values);
        let cells = |row: Row| [vec![row.measure, row.target], row.values].concat();
        Grid { heading, rows: rows.into_iter().map(cells).collect() }
    };
    let databases = report.databases.iter().map(|measured| measured.database.clone()).collect();
    let mut grids = vec![
        grid(databases, report.rows()),
        grid(vec!["measured".to_owned()], report.machine_rows()),
        compared(report),
    ];
    grids.retain(|grid| !grid.rows.is_empty());
    grids
}

fn compared(report: &Report) -> Grid {
    let heading = ["on the same PostgreSQL", "what a life is", "lives a second", "ours to it"];
    let mut grid = Grid { heading: heading.map(str::to_owned).to_vec(), rows: Vec::new() };
    let Some(comparison) = &report.comparison else { return grid };
    let ours = comparison.ours_per_second;
    if let Some(ours) = ours {
        let what = "HTTP create, claim, task_claimed, ten events, completed, acknowledged";
        let cells = ["ozma", what, &thousands(ours), "1.00"];
        grid.rows.push(cells.map(str::to_owned).to_vec());
    }
    for queue in &comparison.queues {
        let ratio =
            ours.map_or_else(|| "–".to_owned(), |ours| format!("{:.2}", ours / queue.per_second));
        let cells = [queue.name, queue.what, &thousands(queue.per_second), &ratio];
        grid.rows.push(cells.map(str::to_owned).to_vec());
    }
    grid
}

pub(super) fn tables(report: &Report, term: &mut Term) -> Result<(), Failure> {
    for grid in grids(report) {
        let heading: Vec<&str> = grid.heading.iter().map(String::as_str).collect();
        let mut table = Table::new(&heading);
        for row in &grid.rows {
            table.row(row);
        }
        term.table(&table)?;
        term.line("")?;
    }
    for line in notes(report) {
        term.line(&line)?;
    }
    for left_out in &report.left_out {
        term.line(&term.paint(Style::Warn, &format!("left out: {left_out}")))?;
    }
    if !report.machine.optimised {
        let text =
            "this is a build without optimisation; `cargo build --release` gives the real numbers";
        term.line(&term.paint(Style::Warn, text))?;
    }
    Ok(())
}

pub(super) fn markdown(report: &Report, term: &mut Term) -> Result<(), Failure> {
    for line in notes(report) {
        term.line(&format!("{line}\n"))?;
    }
    for grid in grids(report) {
        let line = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |", cells.join(" | "))
        };
        term.line(&line(&grid.heading))?;
        term.line(&format!("|{}", " --- |".repeat(grid.heading.len())))?;
        for row in &grid.rows {
            term.line(&line(row))?;
        }
        term.line("")?;
    }
    for left_out in &report.left_out {
        term.line(&format!("Left out: {left_out}.\n"))?;
    }
    Ok(())
}

/// On what it was measured, and that what was counted was found.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = vec![report.machine.describe()];
    for measured in &report.databases {
        let mut found = Vec::new();
        let runs = [
            measured.dispatch.as_ref().map(|dispatch| dispatch.verified),
            measured.lifecycles.as_ref().map(|lives| lives.verified),
        ];
        let runs: u64 = runs.into_iter().flatten().sum();
        if runs > 0 {
            found.push(format!("{} runs with all their events", thousands(to_f64(runs))));
        }
        let events: u64 = measured.events.iter().map(|events| events.verified).sum();
        if events > 0 {
            found.push(format!("{} streamed events in order", thousands(to_f64(events))));
        }
        let found = if found.is_empty() {
            String::new()
        } else {
            format!("; read back: {}", found.join(", "))
        };
        notes.push(format!("{}{found}", measured.durability));
    }
    notes
}
