//! A container engine of a test's own, to be stopped, killed and started again while runs are in it.
//!
//! It lives in namespaces of its own (mounts, processes, network), held by a process that ends with the test
//! process whatever way that ends: nothing of it is left, and the machine's own engine never hears of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::{image, process::Process};

/// What holds the namespaces. `$1` is the folder, `$2` the size of a file system in memory for the engine's data,
/// or nothing for the disk's.
const HOLDER: &str = r#"
    ip link set lo up &&
    ip link add ozt0 type bridge && ip addr add 10.215.99.1/24 dev ozt0 && ip link set ozt0 up &&
    if [ -n "$2" ]; then mount -t tmpfs -o size="$2" ozma-test "$1/data"; fi &&
    echo up && exec cat >/dev/null"#;

/// For a daemon to answer or to end.
const WITHIN: Duration = Duration::from_secs(40);

/// Whether containers live on without their daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    Live,
    /// A daemon that goes stops its containers; one that comes back stops what it finds running.
    None,
}

#[derive(Debug)]
pub struct Engine {
    folder: TempDir,
    holder: Child,
    restore: Restore,
    _containerd: Process,
    daemon: Option<Daemon>,
}

#[derive(Debug)]
struct Daemon {
    process: Process,
    pid: Pid,
}

impl Engine {
    /// One that answers and has the image [`image::busybox`] and those of `images`.
    ///
    /// # Panics
    /// It cannot be started: this needs root, and `dockerd` and `containerd` on the path.
    pub fn start(restore: Restore, images: &[&str]) -> Self {
        Self::with(restore, None, images)
    }

    /// With its data on a file system of so many bytes.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn on_small_disk(restore: Restore, bytes: u64, images: &[&str]) -> Self {
        Self::with(restore, Some(bytes), images)
    }

    fn with(restore: Restore, bytes: Option<u64>, images: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("ozma-e-").tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir(path.join("data")).expect("a folder");
        fs::write(path.join("daemon.json"), "{}").expect("a file");
        fs::write(path.join("containerd.toml"), containerd(path)).expect("a file");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        holder.args(["sh", "-c", HOLDER, "holder"]).arg(path);
        holder.arg(bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
        holder.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("unshare is installed");
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line, "up\n", "an engine of its own can be had by root only");

        let inside = only_child(holder.id());
        let mut command = enter(inside);
        command
            .args(["containerd", "--log-level", "warn", "--config"])
            .arg(path.join("containerd.toml"));
        let containerd = Process::start("containerd", command);
        let mut engine = Self { folder, holder, restore, _containerd: containerd, daemon: None };
        engine.start_again();
        for name in [image::busybox()].iter().chain(images) {
            engine.load(name);
        }
        engine
    }

    /// `unix://…`
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Runs the `docker` command against it.
    ///
    /// # Panics
    /// It fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let host = self.host();
        image::docker(&[&["--host", host.as_str()], arguments].concat(), &[])
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Panics
    /// It does not.
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let path = self.folder.path();
        let mut command = enter(only_child(self.holder.id()));
        command.args([
            "dockerd",
            "--log-level",
            "warn",
            "--bridge",
            "ozt0",
            "--iptables=false",
            "--ip-masq=false",
        ]);
        for (option, file) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "daemon.json"),
            ("--containerd", "containerd.sock"),
        ] {
            command.arg(option).arg(path.join(file));
        }
        command.args(["--host", &self.host()]);
        if self.restore == Restore::Live {
            command.arg("--live-restore");
        }
        let process = Process::start("dockerd", command);
        let pid = only_child(process.pid());
        self.daemon = Some(Daemon { process, pid: Pid::from_raw(pid).expect("no pid is 0") });
        let since = Instant::now();
        while !self.answers() {
            let log = self.daemon.as_ref().map(|daemon| daemon.process.log());
            assert!(since.elapsed() < WITHIN, "no answer: {}", log.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let mut ask = Command::new("docker");
        ask.args(["--host", &self.host(), "version"]);
        ask.stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    }

    /// SIGKILL, and waits until the daemon is gone. Its containers live on, until the next one decides.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    /// SIGTERM, and waits until the daemon is gone.
    ///
    /// # Panics
    /// It does not run, or does not go.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
    }

    fn signal(&mut self, signal: Signal) {
        let daemon = self.daemon.take().expect("it runs");
        kill_process(daemon.pid, signal).expect("the daemon is there");
        let since = Instant::now();
        while test_kill_process(daemon.pid).is_ok() {
            assert!(since.elapsed() < WITHIN, "it does not go:\n{}", daemon.process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn load(&self, name: &str) {
        let mut save = Command::new("docker");
        save.args(["save", name]).stdout(Stdio::piped());
        let mut save = save.spawn().expect("the docker command is installed");
        let archive = save.stdout.take().expect("it was asked for");
        let mut load = Command::new("docker");
        load.args(["--host", &self.host(), "load", "--quiet"]).stdin(archive);
        load.stdout(Stdio::null());
        let loaded = load.status().expect("the docker command is installed").success();
        let saved = save.wait().expect("docker save ends").success();
        assert!(saved && loaded, "image {name} could not be carried over");
    }
}

impl Drop for Engine {
    /// In order, so that no control group of a container stays behind; then everything that is left at once.
    fn drop(&mut self) {
        if self.daemon.is_none() && !std::thread::panicking() {
            self.start_again();
        }
        if self.daemon.is_some() {
            let clean =
                format!("docker --host {} ps -aq | xargs -r docker --host {0} rm -fv", self.host());
            let mut remove = Command::new("sh");
            let _ =
                remove.args(["-c", &clean]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn containerd(path: &Path) -> String {
    let at = |name: &str| path.join(name).display().to_string();
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {:?}\n",
        at("containerd"),
        at("containerd-state"),
        at("containerd.sock")
    )
}

/// A command in the namespaces of process `inside`.
fn enter(inside: i32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &inside.to_string(), "--mount", "--net", "--pid"]);
    command
}

/// The child of a process that has one, soon.
fn only_child(pid: u32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let since = Instant::now();
    loop {
        let children = fs::read_to_string(&path).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().expect("the kernel writes numbers");
        }
        assert!(since.elapsed() < WITHIN, "{pid} has no child");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_live_on_or_not() {
        for (restore, expected) in [(Restore::Live, "true"), (Restore::None, "false")] {
            let mut engine = Engine::start(restore, &[]);
            let run = ["run", "--detach", "--network", "none", "--name", "one", image::BUSYBOX];
            engine.docker(
                &[&run[..], &["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]].concat(),
            );
            engine.kill();
            engine.start_again();
            let runs = engine.docker(&["inspect", "--format", "{{.State.Running}}", "one"]);
            assert_eq!(runs, expected, "{restore:?}");
        }
    }
}
