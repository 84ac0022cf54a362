//! What an operator can set, from a TOML file and from the environment, checked as a whole before anything
//! starts. Secrets are read from files or the environment and never printed.

mod env;
mod harness_images;
mod providers;
mod secret;
mod settings;

use std::path::Path;

use anyhow::{Context, bail, ensure};
use protocol::ids::WorkerId;
use secrecy::SecretString;

use self::secret::read_secret;
pub use self::{
    harness_images::HarnessImages,
    providers::{Dialect, Provider, Providers},
    settings::{Backend, Config, Link, PullPolicy, Sessions},
};
use crate::{address::address, subnets::pool};

/// Longest `state_dir`, in bytes: a unix socket's path holds 107, and a run's is 54 longer than the folder.
const MAX_STATE_DIR_BYTES: usize = 53;

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
        ensure!(
            (100..=3_600_000).contains(&self.disk_check_ms),
            "disk_check_ms must be 100 to 3600000 (an hour), not {}",
            self.disk_check_ms
        );
        ensure!(
            (100..=3_600_000).contains(&self.sweep_ms),
            "sweep_ms must be 100 to 3600000 (an hour), not {}",
            self.sweep_ms
        );
        let path_bytes = self.state_dir.as_os_str().len();
        ensure!(
            path_bytes <= MAX_STATE_DIR_BYTES,
            "state_dir must be at most {MAX_STATE_DIR_BYTES} bytes long, because unix sockets are made \
             below it; {} has {path_bytes}",
            self.state_dir.display()
        );
        ensure!(self.state_dir.is_absolute(), "state_dir must be an absolute path");
        address(&self.plane_url, &self.id()?).context("plane_url")?;
        pool(&self.network_pool).context("network_pool")?;
        self.providers.validate()?;
        Ok(())
    }

    /// Reads every file that the settings name, as a start would.
    ///
    /// # Errors
    /// One cannot be read, or does not hold what it should.
    pub fn check_files(&self) -> anyhow::Result<()> {
        self.providers.each().iter().try_for_each(|(kind, table)| table.endpoint(*kind).map(drop))
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
