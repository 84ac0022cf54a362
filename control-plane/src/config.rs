//! The operator's choices: a TOML file, then the environment, then flags, each winning over the one before.
//! Read once in `main`, validated whole. It never holds a choice that nothing obeys.

mod env;
pub(crate) mod rules;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use protocol::spec::{ProviderKind, Timeouts};
use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    core::{Settings, days},
    timeouts::Ceilings,
};

pub use env::VARIABLES;

/// Who is a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tenancy {
    /// Whoever brings a token: the tenant is named by the token's hash. For loopback.
    #[default]
    Open,
    /// Only whom an admin issued a token to.
    Registered,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {rule}")]
pub struct ConfigError {
    /// The setting's name in the file, or the variable's.
    pub setting: String,
    pub rule: String,
}

impl ConfigError {
    fn new(setting: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { setting: setting.into(), rule: rule.into() }
    }
}

/// Everything an operator can choose. Field names are the keys of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens. `OZ_LISTEN`; `OZ_CONTROL_PLANE_PORT` changes only the port.
    pub listen: SocketAddr,
    /// Where the database, the keys and nothing else are kept; made when absent. `OZ_DATA_DIR`.
    pub data_dir: PathBuf,
    /// `postgres://…` or `sqlite:…`; without it `SQLite` in `<data_dir>/ozma.db`. `DATABASE_URL`.
    pub database_url: Option<SecretString>,
    /// Without it one is made in `<data_dir>/admin.key`. `OZ_ADMIN_API_KEY`.
    pub admin_key: Option<SecretString>,
    /// A file that holds the admin key.
    pub admin_key_file: Option<PathBuf>,
    /// 32 bytes as hex or base64; without it one is made in `<data_dir>/encryption.key`. `OZ_ENCRYPTION_KEY`.
    pub encryption_key: Option<SecretString>,
    /// A file that holds the encryption key.
    pub encryption_key_file: Option<PathBuf>,
    /// `OZ_TENANCY`.
    pub tenancy: Tenancy,
    /// Lets open tenancy listen beyond loopback. `OZ_ALLOW_OPEN_TENANCY`.
    pub allow_open: bool,
    /// The image of runs without an environment; without it such runs are refused. `OZ_DEFAULT_IMAGE`.
    pub default_image: Option<String>,
    /// Who answers where neither a run nor its environment says: `claude` without it, or `codex`, `opencode`,
    /// `gemini`, `agent`. `OZ_DEFAULT_HARNESS`.
    pub default_harness: Option<ProviderKind>,
    /// Whether workers keep what a run leaves for one that goes on with it; an environment may still say no.
    /// `OZ_KEEP_SESSIONS`.
    pub keep_sessions: bool,
    /// What stock workers mount at `/agent`; without it they are given nothing. `OZ_WORKER_SIDECAR_IMAGE`.
    pub worker_sidecar_image: Option<String>,
    /// `*`, one origin or a comma list; off without it. `OZ_CORS_ORIGIN`.
    pub cors_origin: Option<String>,
    /// The root of the API as clients reach it, for links in answers; the request's `Host` without it. `OZ_PUBLIC_URL`.
    pub public_url: Option<String>,
    /// A level or a filter, for whoever starts logging. `OZ_LOG_LEVEL`.
    pub log_level: String,
    /// Largest request body; a larger one is answered with 413. `OZ_MAX_BODY_BYTES`.
    pub max_body_bytes: usize,
    /// Without a heartbeat for this long an execution counts as lost. `OZ_LEASE_MS`.
    pub lease_ms: u64,
    /// How often a worker says that it lives. `OZ_HEARTBEAT_MS`.
    pub heartbeat_ms: u64,
    /// How long a worker may take to answer an assignment. `OZ_WORKER_CLAIM_TIMEOUT_MS`.
    pub claim_timeout_ms: u64,
    /// Executions of one run, the first included. `OZ_MAX_ATTEMPTS`.
    pub max_attempts: u32,
    /// Runs one tenant may have waiting; the next is answered with 429. 0 for no bound. `OZ_MAX_QUEUED_RUNS`.
    pub max_queued_runs: u32,
    /// Runs one tenant may have under way; the others wait. 0 for no bound. `OZ_MAX_RUNNING_RUNS`.
    pub max_running_runs: u32,
    /// Environments one tenant may have; the next is answered with 429. `OZ_MAX_ENVIRONMENTS`.
    pub max_environments: u32,
    /// Streams of events one tenant may follow at a time; the next is answered with 429. `OZ_MAX_STREAMS`.
    pub max_streams: u32,
    /// Seconds of a run where neither it nor its environment says. `OZ_RUN_TIMEOUT_SECS`.
    pub run_timeout_secs: u64,
    /// The same for cloning and set-up. `OZ_SETUP_TIMEOUT_SECS`.
    pub setup_timeout_secs: u64,
    /// The same for having the image. `OZ_IMAGE_TIMEOUT_SECS`.
    pub image_timeout_secs: u64,
    /// The same for one wait in the queue; 0 is as long as `max_queue_secs` allows. `OZ_QUEUE_TIMEOUT_SECS`.
    pub queue_timeout_secs: u64,
    /// No run and no environment may ask for more seconds than this; more is answered with 422. `OZ_MAX_RUN_SECS`.
    pub max_run_secs: u64,
    /// `OZ_MAX_SETUP_SECS`.
    pub max_setup_secs: u64,
    /// `OZ_MAX_IMAGE_SECS`.
    pub max_image_secs: u64,
    /// `OZ_MAX_QUEUE_SECS`.
    pub max_queue_secs: u64,
    /// Runs that ended more days ago are deleted; 0 or less keeps them. `OZ_RUN_RETENTION_DAYS`.
    pub run_retention_days: i64,
    /// Events and artifacts of runs that ended more days ago are deleted; 0 or less keeps them as long as the
    /// run. `OZ_EVENT_RETENTION_DAYS`.
    pub event_retention_days: i64,
    /// How often it is looked what is old enough. `OZ_RETENTION_SWEEP_INTERVAL_MS`.
    pub retention_sweep_interval_ms: u64,
    /// What `/metrics` asks for as bearer token; open to everybody without it. `OZ_METRICS_TOKEN`.
    pub metrics_token: Option<SecretString>,
    /// A file that holds it.
    pub metrics_token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let core = Settings::default();
        Self {
            // Loopback: open tenancy is the default beside it.
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            data_dir: PathBuf::from("ozma-data"),
            database_url: None,
            admin_key: None,
            admin_key_file: None,
            encryption_key: None,
            encryption_key_file: None,
            tenancy: Tenancy::default(),
            allow_open: false,
            default_harness: None,
            keep_sessions: core.keep_sessions,
            default_image: core.default_image,
            worker_sidecar_image: core.sidecar_image,
            cors_origin: None,
            public_url: None,
            log_level: "info".to_owned(),
            // The longest prompt, escaped, and room for the rest.
            max_body_bytes: 4 << 20,
            lease_ms: whole_millis(core.lease),
            heartbeat_ms: whole_millis(core.heartbeat),
            claim_timeout_ms: whole_millis(core.claim_timeout),
            max_attempts: core.max_attempts,
            max_queued_runs: core.max_queued,
            max_running_runs: core.max_running,
            max_environments: core.max_environments,
            max_streams: core.max_streams,
            run_timeout_secs: core.timeouts.run_secs,
            setup_timeout_secs: core.timeouts.setup_secs,
            image_timeout_secs: core.timeouts.image_secs,
            queue_timeout_secs: core.timeouts.queue_secs.unwrap_or_default(),
            max_run_secs: core.ceilings.run_secs,
            max_setup_secs: core.ceilings.setup_secs,
            max_image_secs: core.ceilings.image_secs,
            max_queue_secs: core.ceilings.queue_secs,
            // The community plane's.
            run_retention_days: 30,
            event_retention_days: 0,
            retention_sweep_interval_ms: whole_millis(core.retention_interval),
            metrics_token: None,
            metrics_token_file: None,
        }
    }
}

impl Config {
    /// The defaults, changed by the file and then by the variables. Flags come after, by setting fields; then
    /// [`validate`](Self::validate).
    ///
    /// # Errors
    /// The file is not there or has a key that does not exist; a variable cannot be read. The text names it.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let mut config = match file {
            Some(path) => service::config::read_toml(path)?,
            None => Self::default(),
        };
        config.apply_env(variables)?;
        Ok(config)
    }

    /// What the core obeys of it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            lease: Duration::from_millis(self.lease_ms),
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            claim_timeout: Duration::from_millis(self.claim_timeout_ms),
            max_attempts: self.max_attempts,
            default_harness: self.default_harness.unwrap_or(Settings::default().default_harness),
            keep_sessions: self.keep_sessions,
            default_image: self.default_image.clone(),
            sidecar_image: self.worker_sidecar_image.clone(),
            max_queued: self.max_queued_runs,
            max_running: self.max_running_runs,
            max_environments: self.max_environments,
            max_streams: self.max_streams,
            timeouts: Timeouts {
                queue_secs: (self.queue_timeout_secs > 0).then_some(self.queue_timeout_secs),
                image_secs: self.image_timeout_secs,
                setup_secs: self.setup_timeout_secs,
                run_secs: self.run_timeout_secs,
            },
            ceilings: Ceilings {
                queue_secs: self.max_queue_secs,
                image_secs: self.max_image_secs,
                setup_secs: self.max_setup_secs,
                run_secs: self.max_run_secs,
            },
            run_retention: some_days(self.run_retention_days),
            event_retention: some_days(self.event_retention_days),
            retention_interval: Duration::from_millis(self.retention_sweep_interval_ms),
            ..Settings::default()
        }
    }

    /// The database's address: what was given, or a file in the data folder.
    pub(crate) fn database(&self) -> SecretString {
        self.database_url.clone().unwrap_or_else(|| {
            let path = self.data_dir.join("ozma.db").display().to_string();
            // The rest of the address is a path, but these three would begin something else.
            let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
            SecretString::from(format!("sqlite:{path}"))
        })
    }
}

/// A secret that is given by value or by a file that holds it.
pub(crate) fn secret(
    value: Option<&SecretString>,
    file: Option<&Path>,
) -> anyhow::Result<Option<SecretString>> {
    if let Some(value) = value {
        return Ok(Some(value.clone()));
    }
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the secret file {}", path.display()))?;
    let text = text.trim();
    anyhow::ensure!(!text.is_empty(), "the secret file {} is empty", path.display());
    Ok(Some(SecretString::from(text.to_owned())))
}

/// `None` for what is to be kept.
fn some_days(n: i64) -> Option<Duration> {
    u64::try_from(n).ok().filter(|n| *n > 0).map(days)
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
