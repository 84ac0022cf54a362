//! What every test here needs: a worker with a state folder of its own, runs to give it, and the certainty that
//! nothing stays behind.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use protocol::spec::{HarnessSpec, Network, ProviderKind, RunSpec, Shape, Timeouts};
use service::{clock::Clock, lifecycle::Lifecycle};
use tempfile::TempDir;
use test_support::{
    image::{self, docker},
    wait::eventually,
};
use tokio::runtime::Runtime;
use worker::{Config, config::Backend};

use crate::plane::{Plane, TOKEN};

/// The image that the scripts make.
pub(crate) const SIDECAR_IMAGE: &str = "ozma-sidecar:latest";

pub(crate) struct Rig {
    pub(crate) plane: Plane,
    pub(crate) config: Config,
    /// The time of day as the next worker sees it.
    pub(crate) clock: Clock,
    worker: Option<Worker>,
    state: TempDir,
}

/// A worker in a runtime of its own, so that it can be killed as a process is.
pub(crate) struct Worker {
    runtime: Runtime,
    life: Lifecycle,
    ended: tokio::sync::watch::Receiver<Option<Result<(), String>>>,
}

impl Rig {
    /// A plane, and a worker's settings; the worker is not started.
    pub(crate) async fn new() -> Self {
        let state = tempfile::Builder::new().prefix("ozma-w-").tempdir().unwrap();
        let plane = Plane::start().await;
        let config = Config {
            worker_id: state.path().file_name().unwrap().to_str().unwrap().to_owned(),
            plane_url: format!("http://{}", plane.addr()),
            token: Some(TOKEN.into()),
            state_dir: state.path().join("s"),
            sidecar_image: SIDECAR_IMAGE.to_owned(),
            grace_ms: 2_000,
            ..Config::default()
        };
        Self { plane, config, clock: Clock::system(), worker: None, state }
    }

    /// With a worker on containers, connected.
    pub(crate) async fn docker() -> Self {
        let mut rig = Self::new().await;
        rig.start().await;
        rig
    }

    /// With a worker on plain processes, connected.
    pub(crate) async fn direct() -> Self {
        let mut rig = Self::new().await;
        rig.config.backend = Backend::Direct;
        rig.config.sidecar_binary = Some(sidecar_binary(rig.state.path()));
        rig.start().await;
        rig
    }

    pub(crate) async fn start(&mut self) {
        assert!(
            self.config.backend == Backend::Direct || image::exists(SIDECAR_IMAGE),
            "the image {SIDECAR_IMAGE} is missing: scripts/test.sh makes it"
        );
        let hellos = self.plane.seen().hellos.len();
        self.launch();
        eventually("a hello", || async { (self.plane.seen().hellos.len() > hellos).then_some(()) })
            .await;
    }

    /// Starts the worker and waits for nothing.
    pub(crate) fn launch(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let life = Lifecycle::new();
        let (config, clock, inner) = (self.config.clone(), self.clock.clone(), life.clone());
        let (sender, ended) = tokio::sync::watch::channel(None);
        let _inside = runtime.enter();
        life.spawn(async move {
            let result = worker::run(config, clock, inner).await;
            sender.send_replace(Some(result.map_err(|error| format!("{error:#}"))));
        });
        self.worker = Some(Worker { runtime, life, ended });
    }

    /// Ends the worker as SIGKILL does: at whatever point it is, without a word.
    pub(crate) fn kill(&mut self) {
        let worker = self.worker.take().unwrap();
        let gone = std::thread::spawn(|| worker.runtime.shutdown_timeout(Duration::from_secs(10)));
        gone.join().unwrap();
    }

    pub(crate) fn take_worker(&mut self) -> Option<Worker> {
        self.worker.take()
    }

    pub(crate) fn put_worker(&mut self, worker: Option<Worker>) {
        self.worker = worker;
    }

    pub(crate) fn drain(&self) {
        self.worker.as_ref().unwrap().life.drain();
    }

    /// Nothing new, and an end to what runs.
    pub(crate) fn abort(&self) {
        let life = &self.worker.as_ref().unwrap().life;
        life.drain();
        life.aborting().cancel();
    }

    /// How the worker ended, by itself.
    pub(crate) async fn ended(&self) -> Result<(), String> {
        let ended = self.worker.as_ref().unwrap().ended.clone();
        eventually("the worker's end", || async { ended.borrow().clone() }).await
    }

    pub(crate) fn is_running(&self) -> bool {
        self.worker.as_ref().unwrap().ended.borrow().is_none()
    }

    /// Waits for the report's removal of everything, then ends the worker.
    pub(crate) async fn finish(mut self) {
        eventually("everything of the worker's runs is gone", || async {
            (self.leftovers().is_empty() && self.homes() == 0).then_some(())
        })
        .await;
        if self.is_running() {
            self.drain();
            self.ended().await.unwrap();
        }
        self.kill();
    }

    /// Folders of executions.
    pub(crate) fn homes(&self) -> usize {
        let entries = std::fs::read_dir(self.state.path().join("s")).unwrap();
        let is_home = |entry: &std::fs::DirEntry| {
            // What is kept of conversations has a name no execution has.
            let is_kept = entry.file_name().to_string_lossy().starts_with('.');
            entry.file_type().unwrap().is_dir() && !is_kept
        };
        entries.filter(|entry| is_home(entry.as_ref().unwrap())).count()
    }

    fn leftovers(&self) -> Vec<String> {
        let filter = format!("label=ozma.worker={}", self.config.worker_id);
        let list = |what: &[&str]| {
            let host = self.host();
            let list = docker(&[&host[..], what, &["--quiet", "--filter", &filter]].concat(), &[]);
            list.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let containers = list(&["ps", "--all"]);
        [containers, list(&["network", "ls"]), list(&["volume", "ls"])].concat()
    }

    /// The `docker` command's words for the worker's engine.
    fn host(&self) -> Vec<&str> {
        match self.config.docker_host.as_deref() {
            // A way to this machine's own engine needs none.
            Some(host) if host.starts_with("unix:") => vec!["--host", host],
            _ => Vec::new(),
        }
    }
}

impl Drop for Rig {
    /// A failed test takes its containers and processes along.
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.runtime.shutdown_background();
        }
        if self.config.backend == Backend::Docker {
            for id in self.leftovers() {
                for kind in ["container", "network", "volume"] {
                    let mut remove = std::process::Command::new("docker");
                    let _ = remove.args(self.host()).args([kind, "rm", "--force", &id]).output();
                }
            }
        }
    }
}

/// The name of an execution's container.
pub(crate) fn container(spec: &RunSpec) -> String {
    format!("ozma-{}", spec.execution_id)
}

/// A run of a shell command line in busybox, with nothing to reach.
pub(crate) fn command(line: &str) -> RunSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().build_hasher().finish();
    let id = format!("{number}-{random:016x}");
    RunSpec {
        run_id: format!("run-{id}").parse().unwrap(),
        execution_id: format!("exe-{id}").parse().unwrap(),
        tenant_id: "tenant".parse().unwrap(),
        attempt: 1,
        title: "a test".to_owned(),
        prompt: "the prompt".to_owned(),
        image: image::busybox().to_owned(),
        repos: Vec::new(),
        setup_commands: Vec::new(),
        env: std::collections::BTreeMap::new(),
        harness: HarnessSpec {
            provider: ProviderKind::Command,
            command: Some(line.to_owned()),
            ..HarnessSpec::default()
        },
        shape: Shape { memory_bytes: Some(128 << 20), ..Shape::default() },
        network: Network::None,
        timeouts: Timeouts::default(),
        artifacts: Vec::new(),
        session: None,
    }
}

/// The sidecar's binary, out of its image: the one the other tests run too.
fn sidecar_binary(folder: &Path) -> PathBuf {
    let path = folder.join("ozma-sidecar");
    let id = docker(&["create", "--label", image::LABEL, SIDECAR_IMAGE, "/x"], &[]);
    docker(&["cp", &format!("{id}:/agent/ozma-sidecar"), path.to_str().unwrap()], &[]);
    docker(&["rm", "--force", &id], &[]);
    path
}
