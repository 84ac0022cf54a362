//! The planes' database: a real one, in memory-backed files, with an auditor inside it that no code of ours can
//! pass by. Every table write of a plane is looked at by triggers, whatever the plane believes it does.

use std::{fmt::Write, path::Path, sync::OnceLock};

use control_plane::store::Store;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What is never to happen, as `SQLite` sees it happen. Each trigger notes it within the offending transaction.
const AUDITOR: &str = "
create table audit (what text not null, id text not null);

create trigger audit_terminal_left after update of state on runs
    when old.state in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED') and new.state <> old.state
    begin insert into audit values ('a run left its terminal state', new.id); end;

create trigger audit_two_believed after insert on executions
    when (select count(*) from executions where run_id = new.run_id and ended_at is null) > 1
    begin insert into audit values ('two executions of one run are believed', new.run_id); end;

create trigger audit_drained after insert on executions
    when exists (select 1 from worker_drains where worker_id = new.worker_id)
    begin insert into audit values ('a drained worker was handed something', new.worker_id); end;

create trigger audit_limit after insert on executions
    when (select max_running from tenant_limits join runs using (owner) where runs.id = new.run_id)
        < (select count(*) from executions join runs on runs.id = executions.run_id
           where executions.ended_at is null
               and owner = (select owner from runs where id = new.run_id))
    begin insert into audit values ('a tenant has more under way than it may', new.run_id); end;

create trigger audit_ended_changed after update on executions
    when old.ended_at is not null and (new.ended_at is not old.ended_at
        or new.ending is not old.ending or new.worker_seq <> old.worker_seq
        or new.sidecar_seq <> old.sidecar_seq or new.lease_expires_at <> old.lease_expires_at
        or new.claimed_at is not old.claimed_at or new.instance_id <> old.instance_id)
    begin insert into audit values ('an ended execution changed', new.id); end;

create table audit_ended (id text primary key, last_seq integer not null);

create trigger audit_ended_noted after update on executions
    when old.ended_at is null and new.ended_at is not null
    begin insert into audit_ended select new.id, last_seq from runs where id = new.run_id; end;

create trigger audit_late_event after insert on run_events
    when exists (select 1 from audit_ended where id = new.execution_id and last_seq < new.seq)
    begin insert into audit values ('an event of an ended execution was stored', new.execution_id); end;

create trigger audit_unheard after update on executions
    when new.worker_seq < old.worker_seq or new.sidecar_seq < old.sidecar_seq
    begin insert into audit values ('what was stored is stored no more', new.id); end;
";

/// Writes that may fail, so that a plane stops at every place between two of them.
#[derive(Debug)]
pub(crate) struct Fragile {
    table: &'static str,
    when: &'static str,
}

pub(crate) const FRAGILE: [Fragile; 5] = [
    Fragile { table: "runs", when: "true" },
    Fragile { table: "executions", when: "true" },
    Fragile { table: "run_events", when: "true" },
    // What a group of frames holds beside them can be stored.
    Fragile { table: "run_events", when: "new.kind = 'output'" },
    Fragile { table: "connections", when: "true" },
];

/// The schema and the auditor, made once for all seeds.
static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();

pub(crate) struct Database {
    pub(crate) store: Store,
    /// Beside the planes: looks at what they wrote, and makes their writes fail.
    pub(crate) side: SqliteConnection,
    _folder: TempDir,
}

impl Database {
    pub(crate) fn open(runtime: &Runtime) -> Self {
        let template = TEMPLATE.get_or_init(template);
        let folder = folder();
        let file = folder.path().join("sim.db");
        std::fs::write(&file, template).expect("write the database");
        runtime.block_on(async {
            let store = Store::connect(&url(&file)).await.expect("open the database");
            let side = SqliteConnectOptions::new().filename(&file);
            let side = side.connect().await.expect("open the database");
            Self { store, side, _folder: folder }
        })
    }

    /// From now on these writes fail; with `None`, none.
    pub(crate) fn break_writes(&mut self, runtime: &Runtime, which: Option<&Fragile>) {
        let mut sql = String::new();
        for operation in ["insert", "update"] {
            writeln!(sql, "drop trigger if exists broken_{operation};").expect("texts grow");
            if let Some(Fragile { table, when }) = which {
                writeln!(
                    sql,
                    "create trigger broken_{operation} before {operation} on {table} when {when}
                     begin select raise(abort, 'the disk is full'); end;"
                )
                .expect("texts grow");
            }
        }
        self.run(runtime, sql);
    }

    pub(crate) fn run(&mut self, runtime: &Runtime, sql: String) {
        runtime.block_on(async {
            self.side.execute(sqlx::AssertSqlSafe(sql)).await.expect("change the database");
        });
    }

    pub(crate) fn close(self, runtime: &Runtime) {
        runtime.block_on(async {
            self.store.close().await;
            self.side.close().await.expect("close the database");
        });
    }
}

/// In memory where the system has such a folder: what is waited for is the disk, and it proves nothing here.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("make a folder")
}

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

fn template() -> Vec<u8> {
    let folder = folder();
    let file = folder.path().join("template.db");
    let runtime = super::runtime();
    runtime.block_on(async {
        Store::open(&url(&file)).await.expect("make the schema").close().await;
        let mut side = SqliteConnectOptions::new().filename(&file).connect().await.expect("open");
        side.execute(AUDITOR).await.expect("put the auditor in");
        side.execute("pragma wal_checkpoint(truncate)").await.expect("write it all down");
        side.close().await.expect("close");
    });
    std::fs::read(&file).expect("read the template")
}
