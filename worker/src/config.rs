//! What an operator can set, from a TOML file and from the environment, checked as a whole before anything
//! starts. Secrets are read from files or the environment and never printed.

mod env;
mod providers;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use protocol::{ids::WorkerId, spec::Shape};
use secrecy::SecretString;
use serde::Deserialize;

pub use self::providers::{AgentProvider, Providers};

/// Longest `state_dir`, in bytes: a unix socket's path holds 107, and a run's is 54 longer than the folder.
const MAX_STATE_DIR_BYTES: usize = 53;

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
    /// Where to answer `GET /metrics`; nowhere without it.
    pub metrics_listen: Option<std::net::SocketAddr>,
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
            metrics_listen: None,
        }
    }
}

impl Config {
    /// Reads a TOML file; what it does not name keeps its default.
    ///
    /// # Errors
    /// The file cannot be read or has a key that is not a setting.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        service::config::read_toml(path)
    }

    /// Checks everything that can be checked without a network.
    ///
    /// # Errors
    /// Names the setting and the rule.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.id()?;
        ensure!(self.capacity >= 1, "capacity must be at least 1");
        ensure!(
            self.grace_ms <= 600_000,
            "grace_ms must be at most 600000 (ten minutes), not {}",
            self.grace_ms
        );
        let path_bytes = self.state_dir.as_os_str().len();
        ensure!(
            path_bytes <= MAX_STATE_DIR_BYTES,
            "state_dir must be at most {MAX_STATE_DIR_BYTES} bytes long, because unix sockets are made \
             below it; {} has {path_bytes}",
            self.state_dir.display()
        );
        ensure!(self.state_dir.is_absolute(), "state_dir must be an absolute path");
        crate::link::address(&self.plane_url, &self.id()?).context("plane_url")?;
        crate::backend::pool(&self.network_pool).context("network_pool")?;
        Ok(())
    }

    pub(crate) fn id(&self) -> anyhow::Result<WorkerId> {
        let id: WorkerId = self.worker_id.parse().context("worker_id")?;
        if id.as_str().to_ascii_lowercase().starts_with("warp") {
            bail!("worker_id may not start with \"warp\"");
        }
        Ok(id)
    }

    /// Whether sidecars are reached through the engine.
    pub(crate) fn over_stdio(&self) -> bool {
        match self.link {
            Link::Auto => self.docker_host.as_ref().is_some_and(|host| !host.starts_with("unix:")),
            Link::Socket => false,
            Link::Stdio => true,
        }
    }

    pub(crate) fn secret_token(&self) -> anyhow::Result<SecretString> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let Some(path) = &self.token_file else {
            bail!("token or token_file must be set: the admin key or a worker token of the plane")
        };
        read_secret(path).context("token_file")
    }

    pub(crate) fn parallel_starts(&self) -> usize {
        match self.parallel_starts {
            Some(starts) => starts.max(1) as usize,
            None => 2 * std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The only line of a file, without its newline.
fn read_secret(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = text.trim();
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named() {
        for (change, name) in [
            (
                Box::new(|c: &mut Config| c.worker_id = "warp-1".into()) as Box<dyn Fn(&mut _)>,
                "worker_id",
            ),
            (Box::new(|c: &mut Config| c.capacity = 0), "capacity"),
            (Box::new(|c: &mut Config| c.plane_url = "ftp://x".into()), "plane_url"),
            (Box::new(|c: &mut Config| c.network_pool = "10.0.0.0/30".into()), "network_pool"),
            (
                Box::new(|c: &mut Config| c.state_dir = format!("/{}", "x".repeat(60)).into()),
                "state_dir",
            ),
        ] {
            let mut config = Config::default();
            config.validate().unwrap();
            change(&mut config);
            let error = format!("{:#}", config.validate().unwrap_err());
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_engine_elsewhere_is_reached_over_stdio() {
        let over = |text| toml::from_str::<Config>(text).unwrap().over_stdio();
        assert!(!over(""));
        assert!(!over("docker_host = \"unix:///run/docker.sock\""));
        assert!(over("docker_host = \"tcp://10.0.0.1:2376\""));
        assert!(!over("docker_host = \"tcp://127.0.0.1:2375\"\nlink = \"socket\""));
        assert!(over("link = \"stdio\""));
    }

    #[test]
    fn a_token_does_not_print() {
        let config: Config = toml::from_str("token = \"hunter2\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(toml::from_str::<Config>("tokn = \"x\"").is_err());
    }
}
