//! Runs the parts that are wanted, one after the other, each on a plane of its own.

use std::{path::Path, sync::Arc};

use super::{
    BenchArgs, Kind, Part, compare, container,
    database::{Database, Server, binaries},
    dispatch, engine, events, fairness, idle, lifecycles,
    machine::Machine,
    memory,
    plane::Ground,
    report::{Measured, Report},
    requeue,
};
use crate::{failure::Failure, surroundings::Surroundings, term::Term};

/// Events in a frame: as many as one may hold, and as many as a talkative run sends in a moment.
const BATCHES: [u64; 2] = [protocol::limits::MAX_EVENTS_PER_FRAME as u64, 16];

/// What was wanted, and how much of it.
struct Wanted<'a> {
    args: &'a BenchArgs,
    seconds: u32,
    workers: u32,
    containers: u32,
}

/// What could not be measured, and whether that is a failure.
#[derive(Default)]
struct Missing {
    why: Vec<String>,
    failed: bool,
}

impl Missing {
    /// The value, or a line about it.
    fn take<T>(&mut self, part: &str, measured: Result<T, Failure>) -> Option<T> {
        match measured {
            Ok(value) => Some(value),
            Err(failure) => {
                self.failed = true;
                self.why.push(format!("{part} FAILED: {}", failure.message));
                None
            }
        }
    }
}

impl Wanted<'_> {
    fn has(&self, part: Part) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&part)
    }

    fn on_a_database(&self) -> bool {
        use Part as P;
        let parts = [P::Dispatch, P::Lifecycles, P::Events, P::Workers, P::Requeue, P::Fairness];
        parts.into_iter().any(|part| self.has(part)) || self.args.compare
    }
}

/// Everything that is wanted; and whether a part failed.
///
/// # Errors
/// Nothing can be measured at all.
pub(super) async fn measure(
    args: &BenchArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(Report, bool), Failure> {
    let usual = |given: Option<u32>, usual: u32, quick: u32| {
        given.unwrap_or(if args.quick { quick } else { usual })
    };
    let wanted = Wanted {
        args,
        seconds: usual(args.seconds, 10, 2),
        workers: usual(args.workers, 10_000, 200),
        containers: usual(args.containers, 15, 3),
    };
    let parent = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("ozma-bench-").tempdir_in(parent)?;
    open_to_the_server(folder.path())?;
    let program = match &args.plane_program {
        Some(program) => std::path::absolute(program)?,
        None => std::env::current_exe()?,
    };
    let ground = Ground { around, program, folder: folder.path(), quick: args.quick };
    let mut missing = Missing::default();
    let machine = Machine::look(folder.path())?;
    let mut databases = Vec::new();
    let mut comparison = None;
    for database in chosen(&wanted, folder.path(), &mut missing, term) {
        let measured = on(&ground, &database, &wanted, &mut missing, term).await;
        if let (Database::Postgres(server), true) = (&database, args.compare) {
            let modules = std::path::absolute(&args.queue_folder)?;
            let (seconds, left_out) = (wanted.seconds, &mut missing.why);
            let folder = ground.folder;
            let compared =
                compare::measure(server, around, folder, &modules, seconds, left_out, term).await?;
            let ours_per_second = measured.lifecycles.as_ref().map(|ours| ours.per_second);
            comparison = Some(compare::Comparison { ours_per_second, ..compared });
        }
        databases.push(measured);
    }
    if args.compare && comparison.is_none() {
        missing.why.push("the comparison: it needs PostgreSQL".to_owned());
    }
    let container = containers(&wanted, around, &mut missing, term).await;
    let mut resting = None;
    if wanted.has(Part::Memory) {
        term.status("letting a plane and a worker idle");
        resting = missing.take("memory", memory::measure(&ground).await);
        if resting.as_ref().is_some_and(|memory| memory.worker_bytes.is_none()) {
            missing.why.push("the worker's memory: it does not start here".to_owned());
        }
    }
    let left_out = missing.why;
    let memory = resting;
    Ok((Report { machine, databases, container, memory, comparison, left_out }, missing.failed))
}

/// The databases that are wanted and there are.
fn chosen(
    wanted: &Wanted<'_>,
    folder: &Path,
    missing: &mut Missing,
    term: &mut Term,
) -> Vec<Database> {
    let mut databases = Vec::new();
    if !wanted.on_a_database() {
        return databases;
    }
    let args = wanted.args;
    if args.database != Kind::Postgres {
        databases.push(Database::Sqlite);
    }
    if args.database == Kind::Sqlite {
        return databases;
    }
    let server = match &args.database_url {
        Some(url) => Server::named(url),
        None if args.database == Kind::Both && binaries().is_none() => {
            let why = "PostgreSQL: no server binaries here (apt-get install postgresql), and no --database-url";
            missing.why.push(why.to_owned());
            return databases;
        }
        None => {
            term.status("starting PostgreSQL");
            Server::private(folder)
        }
    };
    databases.extend(missing.take("PostgreSQL", server).map(Arc::new).map(Database::Postgres));
    databases
}

/// All that depends on the database.
async fn on(
    ground: &Ground<'_>,
    database: &Database,
    wanted: &Wanted<'_>,
    missing: &mut Missing,
    term: &mut Term,
) -> Measured {
    let name = database.name();
    let mut measured = Measured { database: name.to_owned(), ..Measured::default() };
    measured.durability = match database {
        Database::Sqlite => "SQLite (WAL, synchronous full)".to_owned(),
        Database::Postgres(server) => {
            missing.take(name, server.describe()).unwrap_or_else(|| name.to_owned())
        }
    };
    let seconds = wanted.seconds;
    let part = |part: &str| format!("{part} on {name}");
    if wanted.has(Part::Dispatch) {
        let rate = wanted.args.rate;
        let done = dispatch::measure(ground, database, rate, seconds, term).await;
        measured.dispatch = missing.take(&part("dispatch"), done);
    }
    if wanted.has(Part::Lifecycles) {
        let done = lifecycles::measure(ground, database, seconds, term).await;
        measured.lifecycles = missing.take(&part("lifecycles"), done);
    }
    if wanted.has(Part::Events) {
        for batch in BATCHES {
            let done = events::measure(ground, database, batch, seconds, term).await;
            measured.events.extend(missing.take(&part("events"), done));
        }
    }
    if wanted.has(Part::Workers) {
        let done = idle::measure(ground, database, wanted.workers, term).await;
        measured.workers = missing.take(&part("workers"), done);
        if let Some(idle) = measured.workers.as_ref().filter(|idle| idle.fewer_than_asked) {
            let text = format!("workers: the file limit allows {} (ulimit -n)", idle.workers);
            missing.why.push(text);
        }
    }
    if wanted.has(Part::Requeue) {
        let done = requeue::measure(ground, database, term).await;
        measured.requeue = missing.take(&part("requeue"), done);
    }
    if wanted.has(Part::Fairness) {
        let done = fairness::measure(ground, database, term).await;
        measured.fairness = missing.take(&part("fairness"), done);
    }
    measured
}

async fn containers(
    wanted: &Wanted<'_>,
    around: &Surroundings,
    missing: &mut Missing,
    term: &mut Term,
) -> Option<container::Cold> {
    if !wanted.has(Part::Containers) {
        return None;
    }
    let Some(engine) = engine::Engine::of(around) else {
        missing.why.push("containers: no engine on a unix socket".to_owned());
        return None;
    };
    let args = wanted.args;
    match container::measure(&engine, &args.image, wanted.containers, around, term).await {
        Ok(cold) => Some(cold),
        Err(failure) => {
            missing.why.push(format!("containers: {}", failure.message));
            None
        }
    }
}

/// A PostgreSQL server that runs as another user must reach its folder below ours.
fn open_to_the_server(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?)
}
