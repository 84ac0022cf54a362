//! A plane and a worker as processes of their own, as an operator runs them; and what they leave behind.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;
use test_support::{
    image::{self, docker},
    postgres::{self, Database},
    process::Process,
    wait::eventually,
};

use crate::client::Tenant;

/// Whoever knows it is the admin, and a worker.
pub(crate) const ADMIN_KEY: &str = "admin-key-of-the-tests";

/// The image with the sidecar, which `scripts/test.sh` makes.
pub(crate) const SIDECAR_IMAGE: &str = "ozma-sidecar:latest";

/// Everything an execution makes carries this label with the worker's id.
const WORKER_LABEL: &str = "ozma.worker";

pub(crate) struct Stack {
    folder: TempDir,
    plane: Process,
    worker: Process,
    addr: SocketAddr,
    worker_id: String,
    worker_settings: Vec<(String, String)>,
    /// None for SQLite. Dropped last, when nobody uses it any more.
    database: Option<Database>,
}

impl Stack {
    /// On SQLite.
    pub(crate) async fn start() -> Self {
        Self::begin(&[], None).await
    }

    /// A stack whose worker has these settings besides.
    pub(crate) async fn start_with(worker_settings: &[(&str, &str)]) -> Self {
        Self::begin(worker_settings, None).await
    }

    pub(crate) async fn start_on_postgres() -> Self {
        Self::begin(&[], Some(postgres::database().await)).await
    }

    async fn begin(worker_settings: &[(&str, &str)], database: Option<Database>) -> Self {
        assert!(
            image::exists(SIDECAR_IMAGE),
            "the image {SIDECAR_IMAGE} is missing: scripts/test.sh and scripts/quickstart.sh make it"
        );
        let folder = tempfile::Builder::new().prefix("ozma-e2e-").tempdir().unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (plane, addr) = start_plane(&folder, anywhere, database.as_ref()).await;
        let worker_id = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        let worker_settings: Vec<(String, String)> = worker_settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let worker = start_worker(&folder, addr, &worker_id, &worker_settings);
        Self { folder, plane, worker, addr, worker_id, worker_settings, database }
    }

    /// A client with this token: in open tenancy the token makes the tenant.
    pub(crate) fn tenant(&self, token: &str) -> Tenant {
        Tenant::new(&format!("http://{}", self.addr), token)
    }

    /// The folder with the plane's data and the worker's state.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// What both processes have logged since their last start.
    pub(crate) fn logs(&self) -> String {
        format!("{}\n{}", self.plane.log(), self.worker.log())
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill_worker(&mut self) {
        self.worker.kill();
    }

    /// The same worker again: same id, same folder.
    pub(crate) fn restart_worker(&mut self) {
        self.worker = start_worker(&self.folder, self.addr, &self.worker_id, &self.worker_settings);
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill_plane(&mut self) {
        self.plane.kill();
    }

    /// The same plane again: same folder, same address.
    pub(crate) async fn restart_plane(&mut self) {
        (self.plane, self.addr) =
            start_plane(&self.folder, self.addr, self.database.as_ref()).await;
    }

    /// The containers that run now for this run.
    pub(crate) fn containers(run: &str) -> Vec<String> {
        let filter = format!("label=ozma.run={run}");
        lines(&docker(&["ps", "--quiet", "--no-trunc", "--filter", &filter], &[]))
    }

    /// Waits until nothing of this worker's executions is left, then stops both processes as an operator does.
    pub(crate) async fn finish(mut self) {
        let worker_id = self.worker_id.clone();
        eventually("the engine is as it was before", || {
            let clean = leftovers(&worker_id).is_empty();
            async move { clean.then_some(()) }
        })
        .await;
        self.worker.terminate();
        let status = self.worker.ended().await;
        assert!(status.success(), "the worker ended with {status}:\n{}", self.worker.log());
        self.plane.terminate();
        let status = self.plane.ended().await;
        assert!(status.success(), "the plane ended with {status}:\n{}", self.plane.log());
    }
}

impl Drop for Stack {
    /// A failed test takes its containers along.
    fn drop(&mut self) {
        self.worker.kill();
        for left in leftovers(&self.worker_id) {
            remove(&left);
        }
        for volume in kept(&self.worker_id) {
            remove(&("volume", volume));
        }
    }
}

/// Takes away what a failed test left.
pub(crate) fn remove((kind, name): &(&'static str, String)) {
    let mut remove = Command::new("docker");
    remove.args([kind, "rm", "--force"]);
    if *kind == "container" {
        remove.arg("--volumes");
    }
    // It may be going by itself.
    let _ = remove.arg(name).output();
}

/// Containers, then networks, then volumes, in the order they can be removed; without what is [`kept`].
pub(crate) fn leftovers(worker_id: &str) -> Vec<(&'static str, String)> {
    let filter = format!("label={WORKER_LABEL}={worker_id}");
    [("container", "--all"), ("network", "--no-trunc"), ("volume", "--quiet")]
        .into_iter()
        .flat_map(|(kind, also)| {
            let found = docker(&[kind, "ls", "--quiet", also, "--filter", &filter], &[]);
            lines(&found).into_iter().map(move |name| (kind, name))
        })
        .filter(|(_, name)| !is_of_conversation(name))
        .collect()
}

/// The volumes that this worker keeps for runs which go on with a conversation.
pub(crate) fn kept(worker_id: &str) -> Vec<String> {
    let filter = format!("label={WORKER_LABEL}={worker_id}");
    let mut found = lines(&docker(&["volume", "ls", "--quiet", "--filter", &filter], &[]));
    found.retain(|name| is_of_conversation(name));
    found
}

fn is_of_conversation(name: &str) -> bool {
    name.starts_with("ozma-workspace-") || name.starts_with("ozma-session-")
}

pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

async fn start_plane(
    folder: &TempDir,
    listen: SocketAddr,
    database: Option<&Database>,
) -> (Process, SocketAddr) {
    let mut command = ozma("serve", folder);
    command
        .env("OZ_LISTEN", listen.to_string())
        .env("OZ_DATA_DIR", folder.path().join("data"))
        .env("OZ_ADMIN_API_KEY", ADMIN_KEY)
        .env("OZ_DEFAULT_HARNESS", "agent")
        .envs(database.map(|database| ("DATABASE_URL", &database.url)));
    let mut plane = Process::start("the plane", command);
    let addr = plane.line("the plane's address", address).await;
    (plane, addr)
}

/// The first address of loopback in a line of log.
pub(crate) fn address(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let text = &line[at..];
    let end =
        text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(text.len());
    text[..end].parse().ok().filter(|addr: &SocketAddr| addr.port() != 0)
}

fn start_worker(
    folder: &TempDir,
    plane: SocketAddr,
    id: &str,
    settings: &[(String, String)],
) -> Process {
    let mut command = ozma("worker", folder);
    command
        .env("OZ_PLANE_URL", format!("http://{plane}"))
        .env("OZ_WORKER_ID", id)
        .env("OZ_WORKER_TOKEN", ADMIN_KEY)
        .env("OZ_WORKER_STATE_DIR", folder.path().join("w"))
        .env("OZ_WORKER_GRACE_MS", "2000")
        .envs(settings.iter().map(|(name, value)| (name, value)));
    Process::start("the worker", command)
}

/// The binary under test, in an environment of nothing but what is said here.
pub(crate) fn ozma(subcommand: &str, folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ozma"));
    command.arg(subcommand).current_dir(folder.path()).env_clear().env("HOME", folder.path());
    for name in ["PATH", "DOCKER_HOST"] {
        #[expect(clippy::disallowed_methods, reason = "a test hands on what the engine needs")]
        if let Ok(value) = std::env::var(name) {
            command.env(name, value);
        }
    }
    command
}
