//! The same shape of work on plain job queues, on the same PostgreSQL in the same run: a number means little
//! without one beside it.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    database::Server,
    lifecycles::IN_FLIGHT,
    stats::{rate, to_f64},
};
use crate::{failure::Failure, surroundings::Surroundings, term::Term};

const SCHEMA: &str = include_str!("compare/schema.sql");
const SCRIPT: &str = include_str!("compare/lifecycle.sql");

/// Clients of pgbench: more of them were not quicker.
const CLIENTS: &str = "64";

/// Seconds that warm up, and are not counted.
const WARM_UP_SECS: u32 = 2;

/// How often a program of ours is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// Ours, from the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ours_per_second: Option<f64>,
    pub(crate) queues: Vec<Queue>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) jobs: u64,
    pub(crate) per_second: f64,
    /// Jobs whose ten events were found at the end.
    pub(crate) verified: u64,
}

pub(crate) async fn measure(
    server: &Server,
    around: &Surroundings,
    folder: &Path,
    modules: &Path,
    seconds: u32,
    left_out: &mut Vec<String>,
    term: &mut Term,
) -> Result<Comparison, Failure> {
    let mut queues = Vec::new();
    term.status("pgbench: jobs claimed with SKIP LOCKED");
    match pgbench(server, folder, seconds).await {
        Ok(queue) => queues.push(queue),
        Err(failure) => left_out.push(format!("pgbench: {}", failure.message)),
    }
    for (name, what, mode) in [
        ("graphile-worker 0.17", "add_job one by one, its defaults, 24 jobs at once", "plain"),
        (
            "graphile-worker 0.17, batched",
            "the same with its local queue and completions in batches",
            "batched",
        ),
    ] {
        term.status(&format!("{name}: {what}"));
        match graphile(server, around, modules, seconds, (name, what), mode).await {
            Ok(queue) => queues.push(queue),
            Err(failure) => left_out.push(format!("{name}: {}", failure.message)),
        }
    }
    Ok(Comparison { ours_per_second: None, queues })
}

/// A database of a comparison's own.
struct Own<'a>(&'a Server, String);

impl<'a> Own<'a> {
    fn new(server: &'a Server) -> Result<Self, Failure> {
        Ok(Self(server, server.create()?.0))
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

async fn pgbench(server: &Server, folder: &Path, seconds: u32) -> Result<Queue, Failure> {
    let own = Own::new(server)?;
    server.say(&own.1, SCHEMA)?;
    let script = folder.join("lifecycle.sql");
    std::fs::write(&script, SCRIPT)?;
    let command = |seconds: u32| {
        let mut command = server.program("pgbench", &own.1);
        command.args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T"]);
        command.arg(seconds.to_string()).arg("-f").arg(&script);
        command
    };
    output(command(WARM_UP_SECS)).await?;
    let done = || -> Result<u64, Failure> {
        let sql = "select count(*) from bench_jobs where state = 'done'";
        number(&server.say(&own.1, sql)?)
    };
    let before = done()?;
    let began = Instant::now();
    output(command(seconds)).await?;
    let took = began.elapsed();
    let after = done()?;
    let whole =
        "select count(*) from (select job from bench_events group by job having count(*) = 10) t";
    let verified = number(&server.say(&own.1, whole)?)?;
    if verified != after {
        let text = format!("{after} jobs are done, {verified} have their events");
        return Err(Failure::platform(text));
    }
    let jobs = after - before;
    let what = "insert, claim with SKIP LOCKED, ten events in one insert, update; 64 connections";
    Ok(Queue { name: "pgbench script", what, jobs, per_second: rate(jobs, took), verified })
}

async fn graphile(
    server: &Server,
    around: &Surroundings,
    modules: &Path,
    seconds: u32,
    (name, what): (&'static str, &'static str),
    mode: &str,
) -> Result<Queue, Failure> {
    #[derive(Deserialize)]
    struct Said {
        jobs: u64,
        seconds: f64,
        all: u64,
        failed: u64,
        events: u64,
        stored: u64,
    }
    let script = modules.join("queue.mjs");
    if !modules.join("node_modules/graphile-worker").exists() {
        let install = format!("npm ci --prefix {}", modules.display());
        return Err(Failure::platform(format!("not installed; `{install}` does it")));
    }
    let own = Own::new(server)?;
    let mut command = Command::new("node");
    command.env_clear().envs(server.variables(&own.1)).stdin(Stdio::null());
    command.envs(around.var("PATH").map(|path| ("PATH", path)));
    command.arg(script).arg(seconds.to_string()).arg(IN_FLIGHT.to_string()).arg(mode);
    let text = output(command).await?;
    let last = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    let said: Said = serde_json::from_str(last)
        .map_err(|error| Failure::platform(format!("its answer is not understood: {error}")))?;
    let whole = said.failed == 0 && said.events == said.stored * 10 && said.stored == said.all;
    if !whole {
        let Said { all, failed, events, .. } = said;
        let text = format!("{all} jobs were done, {failed} failed, {events} events are stored");
        return Err(Failure::platform(text));
    }
    let per_second = to_f64(said.jobs) / said.seconds.max(f64::EPSILON);
    Ok(Queue { name, what, jobs: said.jobs, per_second, verified: said.stored })
}

/// What a program prints until it ends; it ends with this future.
async fn output(mut command: Command) -> Result<String, Failure> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut running = super::process::Running::start(command)?;
    let status = loop {
        if let Some(status) = running.child().try_wait()? {
            break status;
        }
        // Another process, waited for so that Ctrl-C still ends it: looking is the only sign it gives.
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let text = |mut file: std::fs::File| -> Result<String, Failure> {
        use std::io::{Read, Seek};
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if status.success() {
        return text(stdout);
    }
    let said = text(stderr)?;
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(Failure::platform(format!("it ended with {status}: {last}")))
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::platform(format!("not a number: {text}")))
}
