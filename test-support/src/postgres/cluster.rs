//! A private PostgreSQL cluster in a folder of its own, run by an unprivileged user.
//!
//! A guardian shell runs the server and reads from a pipe that only the test process holds. When that process
//! ends, even by SIGKILL, the pipe closes: the guardian stops the server and removes the folder.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
};

/// What the guardian does. `$1` is the binaries' folder, `$2` the cluster's, `$3` the port, `$4` whether a commit
/// is in the system's hands before it is acknowledged.
///
/// Nothing outlives a power cut, and nothing has to: the data does not outlive the tests.
const GUARDIAN: &str = r#"
cd "$2"
trap 'rm -rf "$2"' EXIT
"$1/initdb" -D "$2/data" -U ozma -A trust -E UTF8 --locale=C --no-sync >"$2/initdb.log" 2>&1 ||
    { cat "$2/initdb.log"; exit 1; }
begin() {
    "$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c full_page_writes=off -c synchronous_commit="$4" -c max_connections=300 \
        </dev/null 2>&1 &
}
begin "$@"
trap 'kill -INT $! 2>/dev/null; wait $!; rm -rf "$2"' EXIT
trap '' HUP INT TERM
while read -r order port; do
    case $order in
    kill)
        # The children too: a new server does not start while one of the old lives.
        kill -STOP $!
        kill -KILL $! $(cat /proc/$!/task/$!/children)
        wait $! 2>/dev/null
        echo 'the server is gone'
        ;;
    start) begin "$1" "$2" "$port" "$4" ;;
    esac
done
"#;

/// What is printed by a server that is up, by the guardian that killed it, and by a server that found its port taken,
/// or a process of the killed one that is not quite gone.
const READY: &str = "ready to accept connections";
const GONE: &str = "the server is gone";
const TAKEN: [&str; 2] =
    ["could not create any TCP/IP sockets", "pre-existing shared memory block"];

/// What is kept of the log to tell why a start failed, in bytes; older lines are forgotten.
const MAX_SEEN: usize = 64 << 10;

/// A port taken by somebody between our look and the server's start is tried again this often.
const TRIES: u32 = 5;

#[derive(Debug)]
pub(super) struct Cluster {
    port: u16,
    /// Its standard input is the pipe the guardian watches.
    guardian: Child,
    /// Each start and each kill, as the log tells it: done, or what was said instead.
    done: Mutex<Receiver<Result<(), String>>>,
}

impl Cluster {
    /// With `kept`, what was committed outlives the server's SIGKILL; without, it is quicker.
    ///
    /// # Panics
    /// The server binaries are missing, or the server does not start.
    pub(super) fn start(kept: bool) -> Self {
        let binaries = binaries();
        let mut last = String::new();
        for _ in 0..TRIES {
            match try_start(&binaries, kept) {
                Ok(cluster) => return cluster,
                Err(output) => last = output,
            }
        }
        panic!("PostgreSQL did not start; its last words:\n{last}");
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://ozma@127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILL for the server and everything of it, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.order("kill");
        self.done().expect("the guardian kills");
    }

    /// Starts the server again, on another port, and waits until it takes connections.
    ///
    /// # Panics
    /// It does not start.
    pub(super) fn start_again(&mut self) {
        let mut last = String::new();
        for _ in 0..TRIES {
            self.port = free_port();
            self.order(&format!("start {}", self.port));
            match self.done() {
                Ok(()) => return,
                Err(said) => last = said,
            }
        }
        panic!("PostgreSQL did not start again; its last words:\n{last}");
    }

    /// Waits until the last order is carried out.
    fn done(&self) -> Result<(), String> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.recv().unwrap_or_else(|_| Err("its guardian is gone".to_owned()))
    }

    fn order(&mut self, line: &str) {
        let orders = self.guardian.stdin.as_mut().expect("it was asked for");
        writeln!(orders, "{line}").expect("the guardian reads");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The guardian sees the pipe close, and cleans up.
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

fn try_start(binaries: &Path, kept: bool) -> Result<Cluster, String> {
    let port = free_port();
    // The guardian removes it, whatever becomes of this process.
    let folder = tempfile::Builder::new()
        .prefix("ozma-test-postgres-")
        .tempdir()
        .expect("a temporary folder can be made")
        .keep();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GUARDIAN, "guardian"]).arg(binaries).arg(&folder).arg(port.to_string());
    command.arg(if kept { "on" } else { "off" });
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
    let done = Mutex::new(follow(BufReader::new(output)));
    let cluster = Cluster { port, guardian, done };
    cluster.done().map(|()| cluster)
}

/// Reads the server's log on a thread, so that it never blocks, and tells each start and kill.
fn follow(log: impl BufRead + Send + 'static) -> Receiver<Result<(), String>> {
    let (tell, done) = channel();
    std::thread::spawn(move || {
        let mut seen = String::new();
        for line in log.lines().map_while(Result::ok) {
            let ready = line.contains(READY) || line == GONE;
            seen.push_str(&line);
            seen.push('\n');
            if ready || TAKEN.iter().any(|taken| line.contains(taken)) {
                let said = std::mem::take(&mut seen);
                // Nobody may wait any more.
                let _ = tell.send(if ready { Ok(()) } else { Err(said) });
            } else if seen.len() > MAX_SEEN {
                seen.clear();
            }
        }
        let _ = tell.send(Err(seen));
    });
    done
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
