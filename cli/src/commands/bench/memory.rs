//! What a plane and a worker take when nothing happens: real processes, resident memory as the kernel counts it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{client::Client, connection::Target, failure::Failure, surroundings::Surroundings};

/// How long they idle before they are measured.
const IDLE: Duration = Duration::from_secs(3);

const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) plane_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_bytes: Option<u64>,
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn measure(around: &Surroundings) -> Result<Memory, Failure> {
    let folder = tempfile::Builder::new().prefix("ozma-bench-").tempdir()?;
    let listen = free_port()?;
    let plane =
        start(folder.path(), around, &["serve", "--listen", &listen, "--data-dir", "plane"])?;
    let url = format!("http://{listen}");
    let client =
        Client::new(&Target { url: url.clone(), token: protocol::secret::Secret::default() })?;
    let since = Instant::now();
    while !client.healthy(PATIENCE).await {
        if since.elapsed() > PATIENCE {
            return Err(Failure::platform("the plane to be measured does not start"));
        }
        // Another process, on a port we chose: asking until the deadline is the only sign it gives.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let worker = ["worker", "--plane-url", &url, "--token-file", "plane/admin.key"];
    let state = folder.path().join("worker");
    let state = state.to_string_lossy();
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let worker = [&worker[..], &["--state-dir", &state, "--worker-id", &name]].concat();
    let mut worker = start(folder.path(), around, &worker)?;
    // Idling is what is measured.
    tokio::time::sleep(IDLE).await;
    let lives = worker.0.try_wait()?.is_none();
    Ok(Memory {
        plane_bytes: resident(plane.0.id())
            .ok_or_else(|| Failure::platform("the kernel does not say what the plane takes"))?,
        worker_bytes: if lives { resident(worker.0.id()) } else { None },
    })
}

fn start(folder: &Path, around: &Surroundings, args: &[&str]) -> Result<Running, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).current_dir(folder).env_clear().env("HOME", folder);
    for name in ["DOCKER_HOST", "PATH"] {
        if let Some(value) = around.var(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running(command.spawn()?))
}

/// A port that was free a moment ago.
fn free_port() -> Result<String, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// `VmRSS`, in bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_takes_memory() {
        assert!(super::resident(std::process::id()).unwrap() > 100_000);
    }
}
