//! A private PostgreSQL cluster, durable as `initdb` makes it, in a folder of its own. A guardian shell runs the
//! server and reads from a pipe that only this process holds: however this process ends, the pipe closes, the
//! server stops and the folder goes.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::failure::Failure;

/// `$1` is the binaries' folder, `$2` the cluster's, `$3` the port.
const GUARDIAN: &str = r#"
cd "$2" || exit 1
trap 'rm -rf "$2"' EXIT
"$1/initdb" -D "$2/data" -U ozma -A trust -E UTF8 --locale=C >"$2/initdb.log" 2>&1 ||
    { cat "$2/initdb.log"; exit 1; }
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 </dev/null 2>&1 &
trap 'kill -INT $! 2>/dev/null; wait $!; rm -rf "$2"' EXIT
trap '' HUP INT TERM
cat >/dev/null
"#;

/// Where Debian keeps the server's programs, a folder a version.
const DEBIAN: &str = "/usr/lib/postgresql";

#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    port: u16,
    guardian: Child,
}

impl Cluster {
    /// # Errors
    /// It does not start; the text is its last words.
    pub(super) fn start(programs: &Path, parent: &Path) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // The guardian removes it, whatever becomes of this process.
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent)?.keep();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARDIAN, "guardian"]).arg(programs).arg(&folder).arg(port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A Ctrl-C at the terminal is for us; the guardian then sees the pipe close.
        command.process_group(0);
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root.
            let (uid, gid) = unprivileged_user();
            chown(&folder, Some(uid), Some(gid))?;
            command.uid(uid).gid(gid);
        }
        let mut guardian = command.spawn()?;
        let output = guardian.stdout.take();
        let cluster = Self { folder, port, guardian };
        let output = output.ok_or_else(|| Failure::platform("the guardian has no output"))?;
        match wait_until_ready(BufReader::new(output)) {
            Ok(()) => Ok(cluster),
            Err(said) => Err(Failure::platform(format!("PostgreSQL did not start: {said}"))),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://ozma@127.0.0.1:{}", self.port)
    }

    /// The server's process, as it wrote it down.
    pub(super) fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The pipe is the signal; waiting makes sure that the folder is gone before its parent is removed.
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// Reads the server's log until it takes connections, and goes on reading on a thread, so that it never blocks.
fn wait_until_ready(mut log: impl BufRead + Send + 'static) -> Result<(), String> {
    let mut last = String::new();
    loop {
        let mut line = String::new();
        match log.read_line(&mut line) {
            Ok(0) | Err(_) => return Err(last.trim().to_owned()),
            Ok(_) if line.contains("ready to accept connections") => {
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(());
            }
            Ok(_) => last = line,
        }
    }
}

/// The newest server programs of this machine, in Debian's folders.
pub(crate) fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        let whole = folder.join("initdb").exists() && folder.join("postgres").exists();
        whole.then_some((version, folder))
    });
    found.max().map(|(_, folder)| folder)
}

/// `postgres` where it exists, else `nobody`.
fn unprivileged_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    };
    find("postgres").or_else(|| find("nobody")).unwrap_or((65_534, 65_534))
}
