//! Executions as child processes in private folders, for machines without a container engine. No isolation:
//! a run sees and does whatever this worker's user can. The sidecar is a session of its own, so that it goes
//! on when the worker dies, and is known again by its process id and start time.

mod process;
mod session;

use std::{
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use protocol::{failure::FailureReason, spec::RunSpec};
use tokio::io::BufReader;

use self::process::Process;
use super::answer::{Ended, Failure, Journal, Usage};
use crate::{
    config::Config,
    home::{Home, folder},
    tree::bytes_below,
};

/// Where the sidecar's process is noted in the home.
const NOTE: &str = "process.json";

/// Folder below the home that stands for the container's root.
const ROOT: &str = "root";

pub(crate) struct Direct {
    sidecar: PathBuf,
    state_dir: PathBuf,
    worker_id: String,
    /// Held over work on conversations' folders, which goes on when whoever wanted it does not.
    folders: Arc<Mutex<()>>,
}

impl Direct {
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let sidecar = match &config.sidecar_binary {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .context("find this executable")?
                .with_file_name("ozma-sidecar"),
        };
        ensure!(
            sidecar.is_file(),
            "sidecar_binary: {} is not there; build it, or name it with OZ_SIDECAR_BINARY",
            sidecar.display()
        );
        tracing::warn!(
            "the direct backend isolates nothing: every run can do what this user can. \
             Run only what you would run in your own shell"
        );
        let (state_dir, worker_id) = (config.state_dir.clone(), config.worker_id.clone());
        Ok(Self { sidecar, state_dir, worker_id, folders: Arc::default() })
    }

    /// As root the agent's user has to pass through; what is secret in there has modes of its own.
    pub(super) fn home_mode() -> u32 {
        if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 }
    }

    pub(super) fn start(&self, spec: &RunSpec, home: &Home) -> Result<(), Failure> {
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            Failure::new(FailureReason::ContainerStart, format!("could not {doing}: {error}"))
        };
        let root = home.path().join(ROOT);
        folder(&root, Self::home_mode())
            .map_err(|error| failed("make the run's folder", &error))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(home.path().join("sidecar.log"))
            .map_err(|error| failed("open the sidecar's log", &error))?;
        // `setsid` of the system, because nothing safe of the standard library makes a session.
        let mut command = Command::new("setsid");
        command.arg(&self.sidecar).args(["supervise", "--unisolated", "--root"]).arg(&root);
        if let Some(kept) = self.kept(spec) {
            command.arg("--workspace").arg(kept.workspace());
            command.arg("--session").arg(kept.session());
        }
        let mut child = command
            .env_clear()
            .envs(process::plain_environment())
            .env("OZMA_SOCKET", home.sock().join("worker.sock"))
            .current_dir(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| failed("start the sidecar with setsid", &error))?;
        let noted = Process::of(child.id()).context("the sidecar ended at once");
        let noted = noted.and_then(|process| home.write_json(NOTE, &process));
        // Somebody has to take its exit status, or it stays a zombie.
        std::thread::spawn(move || child.wait());
        if let Err(error) = noted {
            return Err(failed("note the sidecar's process", &format!("{error:#}")));
        }
        tracing::debug!(execution.id = %spec.execution_id, "sidecar started unisolated");
        Ok(())
    }

    pub(super) async fn ended(home: &Home) -> Result<Ended, Failure> {
        let Some(process) = Self::process(home) else { return Ok(Ended::default()) };
        // Not a child after a restart, so its end is looked for; its last words come over the socket.
        while process.is_alive() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Ended { exit_code: None, oom_killed: false, began: true })
    }

    pub(super) fn journal(home: &Home) -> Option<Journal> {
        let path = home.path().join(ROOT).join("ozma/journal.jsonl");
        let opened = rustix::fs::open(
            &path,
            rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let file = std::fs::File::from(opened.ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        Some(Box::new(BufReader::new(tokio::fs::File::from_std(file))))
    }

    pub(super) fn kill(home: &Home) {
        if let Some(process) = Self::process(home) {
            process.kill_session();
        }
    }

    /// What is kept of conversations; what executions take is in their homes.
    pub(super) async fn usage(&self) -> anyhow::Result<Usage> {
        let kept = self.sessions().await?;
        let count = move || {
            let sizes = kept.into_iter().map(|(id, path)| (id, bytes_below(&path)));
            sizes.collect()
        };
        let sessions = tokio::task::spawn_blocking(count).await?;
        Ok(Usage { sessions, ..Usage::default() })
    }

    fn process(home: &Home) -> Option<Process> {
        match home.read_json(NOTE) {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "a process cannot be found again");
                None
            }
        }
    }
}
