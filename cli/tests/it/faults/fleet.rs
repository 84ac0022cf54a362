//! Planes and workers as an operator runs them, each a process of its own, with something breakable in between:
//! everybody reaches a plane through a proxy, and any of them can be killed, stopped, cut off and brought back.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use test_support::{
    disk::{MOUNTED, SmallDisk},
    image::{self, docker},
    postgres::{self, Database, Private},
    process::Process,
    proxy::Proxy,
};

use super::{PATIENCE, caller::Caller, patiently, say};
use crate::stack::{ADMIN_KEY, SIDECAR_IMAGE, address, leftovers, lines, ozma, remove};

/// What every plane of a fleet knows and nobody else needs to.
const ENCRYPTION_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Where the planes keep what they must not lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Sqlite,
    /// `SQLite` on a disk with so many bytes.
    SmallDisk(u64),
    /// The server that all tests share.
    Postgres,
    /// A server of this test's own, which it may kill and cut off.
    OwnPostgres,
}

/// How a fleet is made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) keep: Keep,
    pub(super) planes: usize,
    pub(super) workers: usize,
    /// Executions at once, of each worker.
    pub(super) capacity: usize,
    pub(super) lease_ms: u64,
    /// Whether worker n knows plane n alone, or all of them.
    pub(super) pinned: bool,
    pub(super) settings: &'static [(&'static str, &'static str)],
}

impl Default for Plan {
    /// One plane with the default lease, one worker.
    fn default() -> Self {
        Self {
            keep: Keep::Sqlite,
            planes: 1,
            workers: 1,
            capacity: 4,
            lease_ms: 12_000,
            pinned: false,
            settings: &[],
        }
    }
}

enum Data {
    Sqlite,
    SmallDisk(SmallDisk),
    Postgres(Database),
    OwnPostgres { server: Private, link: Proxy },
}

struct Plane {
    process: Option<Process>,
    addr: Option<SocketAddr>,
    /// Its own address for as long as the fleet lives, whoever listens behind it.
    door: Proxy,
}

struct Worker {
    process: Option<Process>,
    id: String,
    state: PathBuf,
    link: Proxy,
}

pub(super) struct Fleet {
    plan: Plan,
    // Processes go first, then what they used.
    workers: Vec<Worker>,
    planes: Vec<Plane>,
    /// Leads to any plane that is up.
    front: Proxy,
    data: Data,
    /// What those said that were killed.
    last_words: Vec<String>,
    folder: TempDir,
}

impl Fleet {
    pub(super) async fn start(plan: Plan) -> Self {
        assert!(image::exists(SIDECAR_IMAGE), "the image {SIDECAR_IMAGE} is missing");
        let folder = tempfile::Builder::new().prefix("ozma-f-").tempdir().unwrap();
        let data = match plan.keep {
            Keep::Sqlite => Data::Sqlite,
            Keep::SmallDisk(bytes) => Data::SmallDisk(SmallDisk::with_bytes(bytes)),
            Keep::Postgres => Data::Postgres(postgres::database().await),
            Keep::OwnPostgres => {
                let server = Private::start();
                let link = Proxy::start(server.addr()).await;
                Data::OwnPostgres { server, link }
            }
        };
        let front = Proxy::in_front_of(&[]).await;
        let (planes, workers, last_words) = (Vec::new(), Vec::new(), Vec::new());
        let mut fleet = Self { plan, workers, planes, front, data, last_words, folder };
        for _ in 0..fleet.plan.planes {
            let door = Proxy::in_front_of(&[]).await;
            fleet.planes.push(Plane { process: None, addr: None, door });
        }
        let name = fleet.folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        for nth in 0..fleet.plan.workers {
            let (id, state) =
                (format!("{name}-w{nth}"), fleet.folder.path().join(format!("w{nth}")));
            let link = Proxy::in_front_of(&[]).await;
            fleet.workers.push(Worker { process: None, id, state, link });
        }
        for nth in 0..fleet.plan.planes {
            fleet.start_plane(nth).await;
        }
        for nth in 0..fleet.plan.workers {
            fleet.start_worker(nth);
        }
        fleet
    }

    /// A tenant that reaches whatever plane is up.
    pub(super) fn caller(&self) -> Caller {
        Caller::new(format!("http://{}", self.front.addr()))
    }

    /// A tenant that knows one plane alone.
    pub(super) fn caller_of(&self, plane: usize) -> Caller {
        Caller::new(format!("http://{}", self.planes[plane].door.addr()))
    }

    pub(super) fn planes(&self) -> usize {
        self.planes.len()
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Between a worker and the planes.
    pub(super) fn link(&self, worker: usize) -> &Proxy {
        &self.workers[worker].link
    }

    /// Between the tenants and the planes.
    pub(super) fn front(&self) -> &Proxy {
        &self.front
    }

    /// Between the planes and their own database.
    pub(super) fn database(&mut self) -> (&mut Private, &Proxy) {
        match &mut self.data {
            Data::OwnPostgres { server, link } => (server, link),
            _ => panic!("the plan says nothing of a database of its own"),
        }
    }

    pub(super) fn disk(&self) -> &SmallDisk {
        match &self.data {
            Data::SmallDisk(disk) => disk,
            _ => panic!("the plan says nothing of a small disk"),
        }
    }

    /// The worker of this id.
    pub(super) fn worker_named(&self, id: &str) -> usize {
        self.workers.iter().position(|worker| worker.id == id).expect("a worker of this fleet")
    }

    pub(super) fn plane_is_up(&self, nth: usize) -> bool {
        self.planes[nth].process.is_some()
    }

    pub(super) fn worker_is_up(&self, nth: usize) -> bool {
        self.workers[nth].process.is_some()
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(super) fn kill_plane(&mut self, nth: usize) {
        let killed = self.planes[nth].process.take();
        self.planes[nth].addr = None;
        self.lead();
        self.bury(&format!("plane {nth}"), killed);
    }

    /// SIGTERM, and its end, which must be a good one.
    pub(super) async fn stop_plane(&mut self, nth: usize) {
        // As a balancer does: new connections go elsewhere first.
        self.planes[nth].addr = None;
        self.lead();
        let mut process = self.planes[nth].process.take().expect("it is up");
        process.terminate();
        let status = process.ended().await;
        assert!(status.success(), "a plane ended with {status}:\n{}", process.log());
    }

    /// The same plane again: same folder; another port, which nobody has to know.
    pub(super) async fn start_plane(&mut self, nth: usize) {
        let mut command = ozma("serve", &self.folder);
        command
            .env("OZ_LISTEN", "127.0.0.1:0")
            .env("OZ_DATA_DIR", self.data_dir(nth))
            .env("OZ_ADMIN_API_KEY", ADMIN_KEY)
            .env("OZ_ENCRYPTION_KEY", ENCRYPTION_KEY)
            .env("OZ_LEASE_MS", self.plan.lease_ms.to_string())
            .env("OZ_HEARTBEAT_MS", (self.plan.lease_ms / 3).to_string())
            .envs(self.plan.settings.iter().copied())
            .envs(self.database_url().map(|url| ("DATABASE_URL", url)));
        if let Data::SmallDisk(disk) = &self.data {
            command = disk.within(&command);
        }
        let mut process = Process::start(&format!("plane {nth}"), command);
        self.planes[nth].addr = Some(process.line("the plane's address", address).await);
        self.planes[nth].process = Some(process);
        self.lead();
    }

    /// SIGKILL, in the middle of whatever it does. Its containers go on.
    pub(super) fn kill_worker(&mut self, nth: usize) {
        let killed = self.workers[nth].process.take();
        self.bury(&format!("worker {nth}"), killed);
    }

    fn bury(&mut self, name: &str, killed: Option<Process>) {
        if let Some(mut killed) = killed {
            killed.kill();
            self.last_words
                .push(format!("---- log of {name}, until it was killed ----\n{}", killed.log()));
        }
    }

    /// The same worker again: same id, same folder.
    pub(super) fn start_worker(&mut self, nth: usize) {
        let worker = &self.workers[nth];
        let mut command = ozma("worker", &self.folder);
        command
            .env("OZ_PLANE_URL", format!("http://{}", worker.link.addr()))
            .env("OZ_WORKER_ID", &worker.id)
            .env("OZ_WORKER_TOKEN", ADMIN_KEY)
            .env("OZ_WORKER_STATE_DIR", &worker.state)
            .env("OZ_WORKER_CAPACITY", self.plan.capacity.to_string())
            .env("OZ_WORKER_GRACE_MS", "1000");
        self.workers[nth].process = Some(Process::start(&format!("worker {nth}"), command));
    }

    pub(super) fn worker_ids(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.id.clone()).collect()
    }

    /// Waits until nothing is left of any execution, neither on the engine nor in a folder, then stops everybody as
    /// an operator does.
    pub(super) async fn finish(mut self) {
        let workers = || self.workers.iter();
        patiently(PATIENCE, "nothing is left of any execution", || async {
            let empty = workers().all(|worker| folders(&worker.state).is_empty());
            (empty && workers().all(|worker| leftovers(&worker.id).is_empty())).then_some(())
        })
        .await;
        for worker in &mut self.workers {
            let mut process = worker.process.take().expect("it is up");
            process.terminate();
            let status = process.ended().await;
            assert!(status.success(), "a worker ended with {status}:\n{}", process.log());
        }
        for nth in 0..self.planes.len() {
            self.stop_plane(nth).await;
        }
    }

    fn data_dir(&self, plane: usize) -> PathBuf {
        match &self.data {
            Data::SmallDisk(_) => PathBuf::from(MOUNTED).join("data"),
            _ => self.folder.path().join(format!("p{plane}")),
        }
    }

    fn database_url(&self) -> Option<String> {
        match &self.data {
            Data::Sqlite | Data::SmallDisk(_) => None,
            Data::Postgres(database) => Some(database.url.clone()),
            Data::OwnPostgres { link, .. } => {
                Some(format!("postgres://ozma@{}/postgres", link.addr()))
            }
        }
    }

    /// Tells every proxy where the planes are now.
    fn lead(&self) {
        let addrs: Vec<Option<SocketAddr>> = self.planes.iter().map(|plane| plane.addr).collect();
        let up: Vec<SocketAddr> = addrs.iter().copied().flatten().collect();
        self.front.lead_to(&up);
        for plane in &self.planes {
            plane.door.lead_to(plane.addr.as_slice());
        }
        for (nth, worker) in self.workers.iter().enumerate() {
            let own = addrs[nth % addrs.len()];
            worker.link.lead_to(if self.plan.pinned { own.as_slice() } else { &up });
        }
    }
}

impl Drop for Fleet {
    /// A failed test takes its containers along.
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.last_words.join("\n"));
        }
        for worker in &mut self.workers {
            worker.process = None;
            for left in leftovers(&worker.id) {
                remove(&left);
            }
        }
    }
}

/// The containers that run now and carry this label.
pub(super) fn running(label: &str, value: &str) -> Vec<String> {
    let filter = format!("label={label}={value}");
    lines(&docker(&["ps", "--quiet", "--no-trunc", "--filter", &filter], &[]))
}

/// Containers that run now, of these workers.
pub(super) fn containers_of(workers: &[String]) -> Vec<String> {
    workers.iter().flat_map(|worker| running("ozma.worker", worker)).collect()
}

/// The engine's command where it may well fail: what it is about may be gone.
pub(super) fn try_docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().expect("docker is installed");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

/// What is left of executions in a worker's folder.
fn folders(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
