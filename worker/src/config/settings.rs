//! Every setting and its default. What holds between them is the parent's to check.

use std::path::PathBuf;

use protocol::spec::Shape;
use secrecy::SecretString;
use serde::Deserialize;

use super::{harness_images::HarnessImages, providers::Providers};

/// Settings of one worker. A misspelt key is an error that names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `config.worker_host` of a run must equal it. Unique among the workers of one container engine, since
    /// leftovers are found by it. May not start with `warp`, like the stock worker's (oz-api.md 2.5).
    pub worker_id: String,
    /// The plane's root, `http(s)://…` or `ws(s)://…`; a full `…/worker/ws` address is taken as it is.
    pub plane_url: String,
    /// The admin key or a worker token.
    pub token: Option<SecretString>,
    /// Where the token stands instead, alone in a file.
    pub token_file: Option<PathBuf>,
    pub backend: Backend,
    /// `unix://…` or `tcp://…`; `DOCKER_HOST`, then the usual socket, without it.
    pub docker_host: Option<String>,
    /// How the sidecars of its containers are reached.
    pub link: Link,
    /// Executions at once. What is assigned beyond it is rejected and stays queued.
    pub capacity: u32,
    pub tags: Vec<String>,
    /// What a restarted worker finds its executions by; one process at a time may use it.
    pub state_dir: PathBuf,
    /// The image whose `/agent` holds the sidecar.
    pub sidecar_image: String,
    /// Images with the command lines of providers, for environments whose images have none.
    pub harness_images: HarnessImages,
    /// The sidecar of the direct backend; `ozma-sidecar` beside this executable without it.
    pub sidecar_binary: Option<PathBuf>,
    pub pull_policy: PullPolicy,
    /// Limits for runs whose environment names none.
    pub default_shape: Shape,
    /// From the interrupt of a provider to its kill, in milliseconds.
    pub grace_ms: u64,
    /// The engine's runtime by name (`runc`, `runsc`, …); the engine's default without it.
    pub runtime: Option<String>,
    pub providers: Providers,
    /// Containers started at the same time; 2 × cores without it, since starting is bound by the processor.
    pub parallel_starts: Option<u32>,
    /// Private address range that the networks of runs are cut from, each a /28.
    pub network_pool: String,
    /// Most bytes of disk that executions and pulled images may take together; at it nothing new is taken. 0: no
    /// bound.
    pub disk_limit_bytes: u64,
    /// Bytes that must be free where the state folder and the engine's data are; below, nothing new is taken.
    pub min_free_bytes: u64,
    /// Most bytes of disk one execution may take; beyond, it is stopped. 0: no bound.
    pub execution_disk_bytes: u64,
    /// Between two measurements of the disk, in milliseconds; longer where one takes long.
    pub disk_check_ms: u64,
    pub sessions: Sessions,
    /// Between two looks for what no execution owns any more, in milliseconds.
    pub sweep_ms: u64,
    /// Where to answer `GET /metrics`; nowhere without it.
    pub metrics_listen: Option<std::net::SocketAddr>,
}

/// How long and how much of conversations is kept for runs that go on with them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Seconds after its last run; 0: not longer than that run.
    pub keep_secs: u64,
    /// Bytes of all of them together; beyond, those that were unused for longest go.
    pub max_bytes: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        // A day, so that what was begun yesterday goes on; and as much as a usual disk has to spare.
        Self { keep_secs: 86_400, max_bytes: 20 << 30 }
    }
}

/// What executions run in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    #[default]
    Docker,
    /// Child processes in private folders: no isolation.
    Direct,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Direct => "direct",
        }
    }
}

/// The way between this worker and the sidecar in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// By `docker_host`: a unix socket is an engine of this machine, anything else shares no files with it.
    #[default]
    Auto,
    /// A unix socket below `state_dir`, mounted into the container.
    Socket,
    /// The container's standard input and output, attached to through the engine.
    Stdio,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    #[default]
    IfAbsent,
    Always,
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker_id: "local".to_owned(),
            plane_url: "http://127.0.0.1:8080".to_owned(),
            token: None,
            token_file: None,
            backend: Backend::default(),
            docker_host: None,
            link: Link::default(),
            // Agents wait for their models most of the time: more runs than cores is right.
            capacity: 4,
            tags: Vec::new(),
            state_dir: PathBuf::from("/var/lib/ozma/worker"),
            sidecar_image: "ozma-sidecar:latest".to_owned(),
            harness_images: HarnessImages::default(),
            sidecar_binary: None,
            pull_policy: PullPolicy::default(),
            // Room for a build and its tests; a run that needs more says so in its environment.
            default_shape: Shape {
                cpu_millis: Some(2_000),
                memory_bytes: Some(4 << 30),
                pids: Some(2_048),
            },
            grace_ms: 10_000,
            runtime: None,
            providers: Providers::default(),
            parallel_starts: None,
            // Away from the ranges that engines, clouds and home networks hand out themselves.
            network_pool: "10.213.0.0/16".to_owned(),
            disk_limit_bytes: 0,
            // Enough to finish what runs and to write down how it ended.
            min_free_bytes: 512 << 20,
            execution_disk_bytes: 0,
            disk_check_ms: 30_000,
            sessions: Sessions::default(),
            sweep_ms: 60_000,
            metrics_listen: None,
        }
    }
}
