//! Every child is waited for here, our own and those that lost their parents: as PID 1 nobody else would.
//! It must be the only place that waits, or a status would go to the wrong one.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};
use tokio::{
    process::{ChildStderr, ChildStdin, ChildStdout},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::memory;

/// How long processes may take to vanish after SIGKILL before nobody waits for them.
const VANISH: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Reaper {
    waiting: Mutex<HashMap<i32, oneshot::Sender<ExitStatus>>>,
    /// Everything in this PID namespace is below us.
    alone: bool,
}

/// A process in a group of its own.
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    exited: oneshot::Receiver<ExitStatus>,
}

impl Child {
    /// How it ended. Safe to give up; to be asked once only after it answered.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        (&mut self.exited).await.map_err(io::Error::other)
    }
}

impl Reaper {
    pub(crate) fn new() -> io::Result<Self> {
        let alone = getpid().as_raw() == 1;
        if !alone {
            prctl::set_child_subreaper(true)?;
        }
        Ok(Self { waiting: Mutex::new(HashMap::new()), alone })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<ExitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for children as they end, for ever.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, ExitStatus::from_raw(signal as i32))
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            if let Some(sender) = self.waiting().remove(&pid.as_raw()) {
                // Whoever no longer waits does not want to know.
                let _ = sender.send(status);
            }
        }
    }

    /// Starts a process in a group of its own, which the kernel kills before us when memory is short.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // The lock is held over the start, so that no status can come before someone waits for it.
        let mut waiting = self.waiting();
        let mut child = command.process_group(0).spawn()?;
        let (sender, exited) = oneshot::channel();
        waiting.insert(child.id().cast_signed(), sender);
        drop(waiting);
        memory::prefer_to_kill(child.id());
        Ok(Child {
            pid: child.id(),
            stdin: child.stdin.take().map(ChildStdin::from_std).transpose()?,
            stdout: child.stdout.take().map(ChildStdout::from_std).transpose()?,
            stderr: child.stderr.take().map(ChildStderr::from_std).transpose()?,
            exited,
        })
    }

    /// Kills everything but this process: all of the PID namespace, or all descendants. Returns when they are
    /// gone, or after a few seconds.
    pub(crate) async fn kill_all(&self) {
        let deadline = tokio::time::Instant::now() + VANISH;
        loop {
            let left = self.others();
            if left.is_empty() || tokio::time::Instant::now() > deadline {
                return;
            }
            if self.alone {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            } else {
                for pid in left {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The processes that are ours to kill, without zombies.
    fn others(&self) -> Vec<i32> {
        let own = getpid().as_raw();
        let parents = parents();
        let below = |mut pid: i32| {
            while let Some((parent, _)) = parents.get(&pid) {
                if *parent == own {
                    return true;
                }
                pid = *parent;
            }
            false
        };
        let alive = parents.iter().filter(|(pid, (_, zombie))| **pid != own && !zombie);
        alive.map(|(pid, _)| *pid).filter(|pid| self.alone || below(*pid)).collect()
    }
}

/// Every process with its parent, and whether it is a zombie.
fn parents() -> HashMap<i32, (i32, bool)> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields begin behind the last one.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let zombie = fields.next()? == "Z";
        Some((pid, (fields.next()?.parse().ok()?, zombie)))
    })
    .collect()
}
