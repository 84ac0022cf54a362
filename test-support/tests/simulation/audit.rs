//! Holding the database against what really happened, once the world has come to rest.

use std::collections::BTreeMap;

use protocol::{event::EventSource, ids::ExecutionId};

use super::world::World;

#[derive(sqlx::FromRow)]
struct RunRow {
    id: String,
    state: String,
    max_attempts: i64,
    message: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ExecutionRow {
    id: String,
    run_id: String,
    ending: Option<String>,
    worker_seq: i64,
    sidecar_seq: i64,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    run_id: String,
    seq: i64,
    execution_id: Option<String>,
    kind: String,
    data: String,
}

const TERMINAL: [&str; 4] = ["SUCCEEDED", "FAILED", "ERROR", "CANCELLED"];

/// Events a simulated sidecar says; the others are the worker's and the plane's.
const SIDECARS: [&str; 2] = ["output", "exit"];

impl World {
    /// Whether there is nothing left to do for anybody.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        const OPEN: &str = "select (select count(*) from runs where ended_at is null),
            (select count(*) from audit)";
        let (open, noted): (i64, i64) = self
            .runtime
            .block_on(sqlx::query_as(OPEN).fetch_one(&mut self.database.side))
            .expect("count what is open");
        if noted > 0 {
            // What is wrong already gets no better.
            return true;
        }
        let lives = self.containers.values().any(|container| !container.removed);
        open == 0
            && self.wishes == 0
            && !lives
            && self.machines.iter().all(super::worker::Machine::is_clean)
    }

    pub(crate) fn audit(&mut self) {
        let noted: Vec<(String, String)> = self.rows("select what, id from audit");
        for (what, id) in noted {
            self.wrong(format!("{what}: {id}"));
        }
        let runs: Vec<RunRow> = self.rows("select id, state, max_attempts, message from runs");
        let executions: Vec<ExecutionRow> = self
            .rows("select id, run_id, ending, worker_seq, sidecar_seq from executions order by id");
        let events: Vec<EventRow> = self.rows(
            "select run_id, seq, execution_id, kind, data from run_events order by run_id, seq",
        );
        let mut of_run: BTreeMap<&str, Vec<&EventRow>> = BTreeMap::new();
        for event in &events {
            of_run.entry(&event.run_id).or_default().push(event);
        }
        for run in self.truth.accepted.keys().cloned().collect::<Vec<_>>() {
            if !runs.iter().any(|row| row.id == run.as_str()) {
                self.wrong(format!("{run} was accepted and is not stored"));
            }
        }
        if runs.len() != self.truth.accepted.len() {
            let (stored, accepted) = (runs.len(), self.truth.accepted.len());
            self.wrong(format!("{accepted} runs were accepted and {stored} are stored"));
        }
        for run in &runs {
            let events = of_run.get(run.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            self.audit_run(run, events);
            let tried = executions.iter().filter(|execution| {
                execution.run_id == run.id && execution.ending.as_deref() != Some("declined")
            });
            let tried = tried.count();
            if i64::try_from(tried).is_ok_and(|tried| tried > run.max_attempts) {
                self.wrong(format!("{} was tried {tried} times", run.id));
            }
        }
        for execution in &executions {
            let events = of_run.get(execution.run_id.as_str()).map(Vec::as_slice);
            self.audit_execution(execution, events.unwrap_or_default());
        }
        self.audit_acknowledged(&executions);
        self.audit_containers();
    }

    /// Its events follow each other, its state is what they say, and nothing comes after its end.
    fn audit_run(&mut self, run: &RunRow, events: &[&EventRow]) {
        let id = &run.id;
        if !(1..).zip(events).all(|(seq, event)| event.seq == seq) {
            self.wrong(format!("the events of {id} are not numbered without gaps"));
        }
        let mut states = Vec::new();
        let mut current: Option<&str> = None;
        let mut last_done = None;
        for event in events {
            if event.kind == "state" {
                let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                let state = data["state"].as_str().unwrap_or_default().to_owned();
                current = event.execution_id.as_deref();
                last_done = current.or(last_done);
                states.push(state);
            } else if event.data.contains("\"queued\"") {
                // The end of the wait, just before the state that follows: of many a hand-over nothing else is told.
                current = event.execution_id.as_deref();
            } else if event.execution_id.as_deref() != current {
                self.wrong(format!(
                    "{id} has an event of {:?} while {current:?} runs it",
                    event.execution_id
                ));
            }
        }
        let ends = states.iter().filter(|state| TERMINAL.contains(&state.as_str())).count();
        match states.last() {
            Some(last) if ends == 1 && *last == run.state && TERMINAL.contains(&last.as_str()) => {}
            _ if ends == 0 => self.wrong(format!("{id} is not over: {}", run.state)),
            _ => self.wrong(format!("{id} is {} after {states:?}", run.state)),
        }
        if events.last().is_some_and(|event| event.kind != "state") {
            self.wrong(format!("{id} has events after its end"));
        }
        let run_id = id.parse().unwrap();
        let asked = self.truth.cancel_asked.contains(&run_id);
        let accepted = self.truth.cancel_accepted.contains(&run_id);
        if accepted && run.state != "CANCELLED" {
            self.wrong(format!("{id} is {} although its cancel was accepted", run.state));
        }
        if !asked && run.state == "CANCELLED" {
            self.wrong(format!("{id} is CANCELLED and nobody asked for it"));
        }
        if run.state == "SUCCEEDED" {
            let last = last_done.unwrap_or_default().to_owned();
            self.audit_success(run, &last, events);
        }
    }

    /// Success is the word of the last execution's provider, with everything it said before.
    fn audit_success(&mut self, run: &RunRow, execution: &str, events: &[&EventRow]) {
        let now = self.now;
        let id: ExecutionId = execution.parse().unwrap();
        let Some(container) = self.containers.get(&id) else {
            return self.wrong(format!("{} SUCCEEDED without a container", run.id));
        };
        let (said, succeeded) = (container.transcript(now), container.succeeded(now));
        if !succeeded {
            self.wrong(format!("{} SUCCEEDED, and its provider did not", run.id));
        }
        let told = told(events, execution).count();
        if told != said.len() {
            let said = said.len();
            self.wrong(format!("{} SUCCEEDED with {told} of {said} events of {id}", run.id));
        }
        if run.message.as_deref() != Some(format!("{id} has ended").as_str()) {
            self.wrong(format!("{} SUCCEEDED by another's word: {:?}", run.id, run.message));
        }
    }

    /// What is stored of an execution is the beginning of what it said, in order and once.
    fn audit_execution(&mut self, row: &ExecutionRow, events: &[&EventRow]) {
        if row.ending.is_none() {
            self.wrong(format!("{} never ended", row.id));
        }
        let id: ExecutionId = row.id.parse().unwrap();
        let said = self.containers.get(&id).map(|c| c.transcript(self.now)).unwrap_or_default();
        let told: Vec<_> = told(events, &row.id).collect();
        if i64::try_from(told.len()).ok() != Some(row.sidecar_seq) {
            let told = told.len();
            self.wrong(format!(
                "{told} events of {id} are stored, and {} counted",
                row.sidecar_seq
            ));
        }
        let same = told
            .iter()
            .zip(&said)
            .all(|(event, (kind, data))| event.kind == *kind && event.data == *data);
        if !same || told.len() > said.len() {
            self.wrong(format!("what is stored of {id} is not what its provider said"));
        }
        let workers = events.iter().filter(|event| {
            event.execution_id.as_deref() == Some(&row.id)
                && event.kind.starts_with("phase_")
                && !event.data.contains("\"queued\"")
        });
        let workers = workers.count();
        if i64::try_from(workers).ok() != Some(row.worker_seq) {
            self.wrong(format!(
                "{workers} events of {id}'s worker are stored, and {} counted",
                row.worker_seq
            ));
        }
    }

    fn audit_acknowledged(&mut self, executions: &[ExecutionRow]) {
        for ((id, source), seq) in self.truth.acknowledged.clone() {
            let row = executions.iter().find(|row| row.id == id.as_str());
            let of_worker = source == EventSource::Worker.as_str();
            let stored =
                row.map_or(0, |row| if of_worker { row.worker_seq } else { row.sidecar_seq });
            if u64::try_from(stored).is_ok_and(|stored| stored < seq) {
                self.wrong(format!(
                    "event {seq} of {id} ({source}) was acknowledged and is not stored"
                ));
            }
        }
    }

    fn audit_containers(&mut self) {
        let living = self.containers.iter().filter(|(_, container)| !container.removed);
        let living: Vec<_> =
            living.map(|(id, container)| (id.clone(), container.run.clone())).collect();
        for (id, run) in living {
            self.wrong(format!("the container of {id} ({run}) still lives"));
        }
    }

    fn rows<T>(&mut self, sql: &'static str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>,
    {
        let rows = sqlx::query_as(sql).fetch_all(&mut self.database.side);
        self.runtime.block_on(rows).expect("read the database")
    }
}

fn told<'a>(events: &'a [&EventRow], execution: &'a str) -> impl Iterator<Item = &'a EventRow> {
    events.iter().copied().filter(move |event| {
        event.execution_id.as_deref() == Some(execution) && SIDECARS.contains(&event.kind.as_str())
    })
}
