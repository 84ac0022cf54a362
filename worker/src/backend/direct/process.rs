//! Processes by id and start time, so that an id used again is never taken for the one that is gone.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Rounds of killing: a process may fork between the look and the kill.
const ROUNDS: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: u32,
    /// Clock ticks since the machine's start.
    started: u64,
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: char,
    parent: u32,
    session: u32,
    started: u64,
}

impl Process {
    pub(super) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    pub(super) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Kills the process, its session and its descendants. Not one that ended: its id may be another's by now,
    /// and its session with it.
    pub(super) fn kill_session(self) {
        for _ in 0..ROUNDS {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for pid in members {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    // Gone already is as good.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }

    fn members(self) -> Vec<u32> {
        let all: BTreeMap<u32, Stat> = processes();
        // A dead leader's session lives on in its children, but only while no other process has its id.
        let reused = all.get(&self.pid).is_some_and(|stat| stat.started != self.started);
        if reused {
            return Vec::new();
        }
        let mut members = Vec::new();
        for (pid, stat) in &all {
            let ours =
                *pid == self.pid || stat.session == self.pid || descends(&all, *pid, self.pid);
            // A session older than its leader is another's.
            if ours && stat.state != 'Z' && stat.started >= self.started {
                members.push(*pid);
            }
        }
        members
    }
}

fn descends(all: &BTreeMap<u32, Stat>, mut pid: u32, ancestor: u32) -> bool {
    // Bounded, should the picture have changed while it was taken.
    for _ in 0..64 {
        let Some(stat) = all.get(&pid) else { return false };
        if stat.parent == ancestor {
            return true;
        }
        pid = stat.parent;
    }
    false
}

fn processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// What a process needs of ours to find programs; nothing with a secret in it.
pub(super) fn plain_environment() -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>
{
    const KEPT: [&str; 7] =
        ["PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR"];
    std::env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name == kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
    }

    #[tokio::test]
    async fn a_session_is_killed_whole() {
        use std::io::{BufRead, BufReader};
        let mut child = std::process::Command::new("setsid")
            .args(["sh", "-c", "(sleep 300 & echo $!; wait) & wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let leader = Process::of(child.id()).unwrap();
        let grandchild = Process::of(line.trim().parse().unwrap()).unwrap();
        leader.kill_session();
        child.wait().unwrap();
        // A killed process still takes its time to go.
        test_support::wait::eventually("the grandchild's end", || async {
            (!grandchild.is_alive()).then_some(())
        })
        .await;
    }
}
