//! What happened, in order, in names a person can keep apart; and what was wrong with it.

use std::{collections::HashMap, fmt};

use protocol::link::{FromWorker, ToWorker};

use super::world::Ms;

/// Lines kept; a schedule is far shorter.
const MOST_LINES: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Vec<String>,
    names: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

/// What came of one seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: Trace,
    /// How long after the last misfortune everything was done.
    pub(crate) rested_after: Ms,
    pub(crate) executions: usize,
}

impl Trace {
    pub(crate) fn note(&mut self, now: Ms, what: fmt::Arguments<'_>) {
        if self.lines.len() < MOST_LINES {
            let text = self.with_names(what.to_string());
            self.lines.push(format!("{:>4}.{:03} {text}", now / 1_000, now % 1_000));
        }
    }

    /// Ids differ from one run of a seed to the next; their names do not.
    pub(crate) fn name(&mut self, kind: &'static str, id: &str) {
        let count = self.counts.entry(kind).or_default();
        self.names.entry(id.to_owned()).or_insert_with(|| {
            *count += 1;
            format!("{kind}{count}")
        });
    }

    /// `text` with every id that has a name replaced by it.
    pub(crate) fn with_names(&self, text: String) -> String {
        const ID: usize = 36;
        if text.len() < ID {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let id = if rest.as_bytes().get(8) == Some(&b'-') { rest.get(..ID) } else { None };
            if let Some(name) = id.and_then(|id| self.names.get(id)) {
                out += name;
                rest = &rest[ID..];
            } else {
                let next = rest.chars().next().map_or(1, char::len_utf8);
                out += &rest[..next];
                rest = &rest[next..];
            }
        }
        out
    }

    fn last(&self, most: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(most)..]
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Outcome {
    pub(crate) fn report(&self, lines: usize) -> String {
        let Self { seed, wrong, trace, .. } = self;
        let wrong: Vec<_> = wrong.iter().map(|text| trace.with_names(text.clone())).collect();
        format!(
            "seed {seed}:\n  {}\nthe end of its schedule:\n{}\nall of it: OZMA_SIM_SEED={seed} cargo test -p test-support --test simulation every_run -- --nocapture",
            wrong.join("\n  "),
            trace.last(lines).join("\n")
        )
    }
}

/// A worker's frame in short.
pub(crate) fn said(frame: &FromWorker) -> String {
    match frame {
        FromWorker::Hello(hello) => {
            let held: Vec<_> = hello.executions.iter().map(|held| &held.execution_id).collect();
            format!("hello from {}, holding {held:?}", hello.instance_id)
        }
        FromWorker::Events(batch) => {
            let seqs: Vec<_> = batch.events.iter().map(|line| line.seq).collect();
            let (id, source) = (&batch.execution_id, batch.source.as_str());
            match (seqs.first(), seqs.last()) {
                (Some(first), Some(last)) => format!("{source} events {first}..={last} of {id}"),
                _ => format!("no {source} events of {id}"),
            }
        }
        FromWorker::Heartbeat(beat) => {
            format!("heartbeat for {:?}, {} free", beat.executions, beat.free)
        }
        other => other.to_json(),
    }
}

/// A plane's frame in short.
pub(crate) fn told(frame: &ToWorker) -> String {
    match frame {
        ToWorker::TaskAssignment(assignment) => {
            format!("{} is assigned as {}", assignment.task_id, assignment.execution_id)
        }
        ToWorker::Ack(ack) => {
            format!(
                "{} events of {} stored up to {}",
                ack.source.as_str(),
                ack.execution_id,
                ack.seq
            )
        }
        ToWorker::Welcome(welcome) => format!("welcome, {:?}", welcome.executions),
        other => other.to_json(),
    }
}
