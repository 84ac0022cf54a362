//! A private PostgreSQL cluster in a folder of its own, run by an unprivileged user.
//!
//! A guardian shell runs the server and reads from a pipe that only the test process holds. When that process
//! ends, even by SIGKILL, the pipe closes: the guardian stops the server and removes the folder.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What the guardian does. `$1` is the binaries' folder, `$2` the cluster's, `$3` the port.
///
/// Durability is off: the data does not outlive the tests.
const GUARDIAN: &str = r#"
cd "$2"
trap 'rm -rf "$2"' EXIT
"$1/initdb" -D "$2/data" -U ozma -A trust -E UTF8 --locale=C --no-sync >"$2/initdb.log" 2>&1 ||
    { cat "$2/initdb.log"; exit 1; }
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=300 \
    </dev/null 2>&1 &
trap 'kill -INT $! 2>/dev/null; wait $!; rm -rf "$2"' EXIT
trap '' HUP INT TERM
cat >/dev/null
"#;

/// A port taken by somebody between our look and the server's start is tried again this often.
const TRIES: u32 = 5;

#[derive(Debug)]
pub(super) struct Cluster {
    port: u16,
    /// Its standard input is the pipe the guardian watches.
    _guardian: Child,
}

impl Cluster {
    /// # Panics
    /// The server binaries are missing, or the server does not start.
    pub(super) fn start() -> Self {
        let binaries = binaries();
        let mut last = String::new();
        for _ in 0..TRIES {
            match try_start(&binaries) {
                Ok(cluster) => return cluster,
                Err(output) => last = output,
            }
        }
        panic!("PostgreSQL did not start; its last words:\n{last}");
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://ozma@127.0.0.1:{}", self.port)
    }
}

fn try_start(binaries: &Path) -> Result<Cluster, String> {
    let port = free_port();
    // The guardian removes it, whatever becomes of this process.
    let folder = tempfile::Builder::new()
        .prefix("ozma-test-postgres-")
        .tempdir()
        .expect("a temporary folder can be made")
        .keep();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GUARDIAN, "guardian"]).arg(binaries).arg(&folder).arg(port.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // A Ctrl-C at the terminal ends the tests; the guardian then sees the pipe close.
    command.process_group(0);
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = unprivileged_user();
        chown(&folder, Some(uid), Some(gid)).expect("root may give a folder away");
        command.uid(uid).gid(gid);
    }
    let mut guardian = command.spawn().expect("/bin/sh starts");
    let output = guardian.stdout.take().expect("it was asked for");
    if let Err(said) = wait_until_ready(BufReader::new(output)) {
        guardian.wait().expect("a child can be waited for");
        return Err(said);
    }
    Ok(Cluster { port, _guardian: guardian })
}

/// Reads the server's log until it takes connections; goes on reading it on a thread, so that it never blocks.
fn wait_until_ready(mut log: impl BufRead + Send + 'static) -> Result<(), String> {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        let read = log.read_line(&mut line).expect("the server's log can be read");
        seen.push_str(&line);
        if read == 0 {
            return Err(seen);
        }
        if line.contains("ready to accept connections") {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Ok(());
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// The newest PostgreSQL of this machine: Debian's folders first, then the search path.
fn binaries() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let on_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .collect::<Vec<PathBuf>>();
    versions
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(on_path)
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .expect(
            "PostgreSQL's server binaries (initdb, postgres): on Debian `apt-get install postgresql`, \
             or name a running server in OZMA_TEST_POSTGRES_URL",
        )
}

/// PostgreSQL refuses to run as root: `postgres` where it exists, else `nobody`.
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
