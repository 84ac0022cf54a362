//! Everything that was measured, and its rows: what a table shows, with the target beside it. Pure.

use serde::Serialize;

use super::{
    compare::Comparison,
    container::Cold,
    dispatch::Dispatch,
    events::Events,
    fairness::Fairness,
    idle::Idle,
    lifecycles::Lifecycles,
    machine::Machine,
    memory::Memory,
    requeue::Requeue,
    stats::{Spread, to_f64},
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// One for each database.
    pub(crate) databases: Vec<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<Cold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<Comparison>,
    /// What was left out, and why.
    pub(crate) left_out: Vec<String>,
}

/// What depends on the database.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) database: String,
    /// In the words of the server.
    pub(crate) durability: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dispatch: Option<Dispatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lifecycles: Option<Lifecycles>,
    /// In full frames, and in small ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<Idle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requeue: Option<Requeue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fairness: Option<Fairness>,
}

/// One line of the table: what, what it should be, and what it is on each database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) measure: String,
    pub(crate) target: String,
    pub(crate) values: Vec<String>,
}

impl Report {
    /// The lines of the table, in the order of the targets.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut each =
            |measure: String, target: &str, value: &dyn Fn(&Measured) -> Option<String>| {
                let values: Vec<_> = self.databases.iter().map(value).collect();
                if values.iter().any(Option::is_some) {
                    let values =
                        values.into_iter().map(|value| value.unwrap_or_else(nothing)).collect();
                    rows.push(Row { measure, target: target.to_owned(), values });
                }
            };
        let first = |of: &dyn Fn(&Measured) -> Option<String>| self.databases.iter().find_map(of);

        let rate =
            first(&|m| Some(m.dispatch.as_ref()?.per_second.to_string())).unwrap_or_default();
        each(
            format!("dispatch at {rate} runs/s: POST answered → assignment on the worker's socket"),
            "p50 ≤ 3 ms, p99 ≤ 15 ms; PostgreSQL 4, 20",
            &|m| Some(percentiles(&m.dispatch.as_ref()?.answered_to_assigned)),
        );
        each("the same from when the request was due (open loop)".to_owned(), "", &|m| {
            Some(percentiles(&m.dispatch.as_ref()?.due_to_assigned))
        });
        each("request due → its answer".to_owned(), "", &|m| {
            Some(percentiles(&m.dispatch.as_ref()?.due_to_answered))
        });
        each(
            "lifecycles a second, durable, 10 events each".to_owned(),
            "≥ 2,000; PostgreSQL 1,500",
            &|m| Some(thousands(m.lifecycles.as_ref()?.per_second)),
        );
        each("processor time of a lifecycle: plane, generator, database".to_owned(), "", &|m| {
            let l = m.lifecycles.as_ref()?;
            let database = l.database_micros_a_run;
            Some(spent(l.plane_micros_a_run, l.generator_micros_a_run, database, 0))
        });
        let batches: Vec<u64> = self
            .databases
            .iter()
            .find(|m| !m.events.is_empty())
            .map(|m| m.events.iter().map(|events| events.batch).collect())
            .unwrap_or_default();
        for (i, batch) in batches.into_iter().enumerate() {
            let target = if i == 0 { "≥ 50,000" } else { "" };
            each(format!("events a second stored, {batch} a frame"), target, &|m| {
                Some(thousands(m.events.get(i)?.per_second))
            });
            each("processor time of an event: plane, generator, database".to_owned(), "", &|m| {
                let e = m.events.get(i)?;
                let database = e.database_micros_an_event;
                Some(spent(e.plane_micros_an_event, e.generator_micros_an_event, database, 1))
            });
        }
        let workers = first(&|m| Some(thousands(to_f64(m.workers.as_ref()?.workers))));
        each(
            format!("{} idle workers: memory of each in the plane", workers.unwrap_or_default()),
            "≤ 12 KiB",
            &|m| Some(format!("{:.1} KiB", m.workers.as_ref()?.bytes_a_worker / 1024.0)),
        );
        each("the plane's processor meanwhile, of one core".to_owned(), "", &|m| {
            Some(format!("{:.0} %", m.workers.as_ref()?.plane_processor_percent))
        });
        each("worker killed → its run on another (socket closed)".to_owned(), "≤ 15 s", &|m| {
            Some(seconds(&m.requeue.as_ref()?.closed))
        });
        each("worker black-holed → its run on another".to_owned(), "≤ 15 s", &|m| {
            Some(seconds(&m.requeue.as_ref()?.silent))
        });
        each(
            "flood of 100 to 1: growth of the other tenant's median wait".to_owned(),
            "≤ 1 run's length",
            &|m| Some(format!("{:.2} of a run", m.fairness.as_ref()?.median_grew_by_runs)),
        );
        each("its median wait alone → under the flood".to_owned(), "", &|m| {
            let f = m.fairness.as_ref()?;
            Some(format!("{} → {}", ms(f.alone.p50_ms), ms(f.under_the_flood.p50_ms)))
        });
        rows
    }

    /// What does not depend on the database.
    pub(crate) fn machine_rows(&self) -> Vec<Row> {
        let row = |measure: &str, target: &str, value: String| Row {
            measure: measure.to_owned(),
            target: target.to_owned(),
            values: vec![value],
        };
        let mut rows = Vec::new();
        if let Some(cold) = &self.container {
            let over = format!("{} (over {})", percentiles(&cold.ours), cold.ours.count);
            rows.push(row("assignment → first event, cold container", "", over));
            let name = "bare container of the same image: create + start + first output";
            rows.push(row(name, "", percentiles(&cold.bare)));
            rows.push(row("ratio of the medians", "≤ 1.05", format!("{:.2}", cold.ratio)));
        }
        if let Some(memory) = &self.memory {
            let name = "idle plane, resident";
            rows.push(row(name, "≤ 50 MiB", mib(memory.plane_bytes)));
            if let Some(bytes) = memory.worker_bytes {
                rows.push(row("idle worker, resident", "≤ 20 MiB", mib(bytes)));
            }
        }
        if let Some(bytes) = self.container.as_ref().and_then(|cold| cold.sidecar_bytes) {
            rows.push(row("idle sidecar in its container, resident", "≤ 4 MiB", mib(bytes)));
        }
        if let Some(bytes) = self.container.as_ref().and_then(|cold| cold.sidecar_image_bytes) {
            rows.push(row("the sidecar's image", "", mib(bytes)));
        }
        rows
    }
}

fn nothing() -> String {
    "–".to_owned()
}

pub(crate) fn percentiles(spread: &Spread) -> String {
    let [p50, p95, p99] = [spread.p50_ms, spread.p95_ms, spread.p99_ms].map(ms);
    format!("{p50} / {p95} / {p99}")
}

fn seconds(spread: &Spread) -> String {
    let [p50, max] = [spread.p50_ms, spread.max_ms].map(|ms| ms / 1_000.0);
    format!("median {p50:.1} s, most {max:.1} s")
}

fn spent(plane: f64, generator: f64, database: Option<f64>, digits: usize) -> String {
    let database = database.map_or_else(|| "–".to_owned(), |micros| format!("{micros:.digits$}"));
    format!("{plane:.digits$} + {generator:.digits$} + {database} µs")
}

pub(crate) fn ms(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", to_f64(bytes) / f64::from(1 << 20))
}

/// `12,345`.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0.0, 999.4, 1_000.0, 1_234_567.0].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([0.123, 9.96, 12.4].map(ms), ["0.1 ms", "10.0 ms", "12 ms"]);
        assert_eq!(mib(3 << 19), "1.5 MiB");
        assert_eq!(spent(430.4, 99.6, None, 0), "430 + 100 + – µs");
    }

    #[test]
    fn a_part_that_was_left_out_has_no_row_and_a_missing_database_a_dash() {
        let idle = Idle {
            workers: 10_000,
            fewer_than_asked: false,
            before_bytes: 0,
            after_bytes: 0,
            bytes_a_worker: 6_144.0,
            connecting_seconds: 1.0,
            heartbeat_ms: 4_000,
            plane_processor_percent: 3.0,
        };
        let sqlite = Measured { workers: Some(idle), ..Measured::default() };
        let report = Report {
            machine: Machine::default(),
            databases: vec![sqlite, Measured::default()],
            container: None,
            memory: None,
            comparison: None,
            left_out: Vec::new(),
        };
        let rows = report.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].measure, "10,000 idle workers: memory of each in the plane");
        assert_eq!(rows[0].values, ["6.0 KiB", "–"]);
        assert!(report.machine_rows().is_empty());
    }
}
