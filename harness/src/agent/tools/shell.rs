//! Running command lines: a group of their own each, a time limit, both streams in the order they came.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use protocol::secret::Secret;
use serde::Deserialize;
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command, task::JoinSet};

use super::result::{MAX_RESULT_BYTES, Result};
use crate::process::{Group, exit_code, signal_group};

const DEFAULT_TIMEOUT_SECS: u64 = 120;

/// A longer limit is cut to this one.
const MAX_TIMEOUT_SECS: u64 = 1_800;

/// How long output is still taken after its command has ended: a process in the background may hold it, and talk,
/// for ever.
const LINGER: Duration = Duration::from_millis(200);

/// From the interrupt of a run to the signal that its command does not survive.
const INTERRUPT_FOR: Duration = Duration::from_secs(4);

/// What is kept of a long output: its beginning, and as much of its end.
const KEPT_BYTES: usize = MAX_RESULT_BYTES / 2 - 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    command: String,
    timeout_secs: Option<u64>,
}

/// The group of the command that is running; 0 when none is.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Running(Arc<AtomicU32>);

impl Running {
    /// Interrupts the command if there is one, and waits a while for its end. Whoever drops what ran it kills it.
    pub(in crate::agent) async fn interrupt(&self, ended: impl Future) {
        let group = self.0.load(Ordering::Relaxed);
        if group > 0 {
            signal_group(group, Signal::SIGTERM);
            let _ = tokio::time::timeout(INTERRUPT_FOR, ended).await;
        }
    }
}

pub(super) struct Shell {
    directory: PathBuf,
    env: BTreeMap<String, Secret>,
    running: Running,
    /// Readers of output that something in the background still holds: without one it would be killed by its
    /// next line.
    held: JoinSet<()>,
}

impl Shell {
    pub(super) fn new(directory: PathBuf, env: BTreeMap<String, Secret>) -> Self {
        Self { directory, env, running: Running::default(), held: JoinSet::new() }
    }

    pub(super) fn running(&self) -> Running {
        self.running.clone()
    }

    pub(super) async fn run(&mut self, input: Input) -> Result {
        match self.try_run(&input).await {
            Ok(result) => result,
            Err(error) => Result::new(false, format!("could not run /bin/sh: {error}")),
        }
    }

    async fn try_run(&mut self, input: &Input) -> std::io::Result<Result> {
        let (reader, writer) = std::io::pipe()?;
        let mut output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(&input.command)
            .envs(self.env.iter().map(|(name, value)| (name, value.expose())))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        // It holds the writing end; while it does, the output has no end.
        drop(command);
        let group = child.id().unwrap_or_default();
        let unattended = Group::of(&child);
        self.running.0.store(group, Ordering::Relaxed);

        let secs = input.timeout_secs.unwrap_or(DEFAULT_TIMEOUT_SECS).clamp(1, MAX_TIMEOUT_SECS);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(secs);
        let mut kept = Kept::default();
        let mut chunk = vec![0; 32 << 10];
        let mut status = None;
        let mut until = deadline;
        let mut open = true;
        let mut late = false;
        while status.is_none() || open {
            tokio::select! {
                // The limit first: a command that never stops talking would starve it.
                biased;
                () = tokio::time::sleep_until(deadline), if !late => {
                    late = true;
                    signal_group(group, Signal::SIGKILL);
                }
                ended = child.wait(), if status.is_none() => {
                    status = Some(ended?);
                    until = tokio::time::Instant::now() + LINGER;
                }
                () = tokio::time::sleep_until(until), if status.is_some() => break,
                count = output.read(&mut chunk), if open => match count {
                    Ok(count) if count > 0 => kept.push(&chunk[..count]),
                    _ => open = false,
                },
            }
        }
        unattended.ended();
        self.running.0.store(0, Ordering::Relaxed);
        if open {
            self.held.spawn(async move {
                while output.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
            });
        }
        let code = status.map_or(-1, exit_code);
        let (mut text, truncated) = kept.into_text();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if late {
            let _ = write!(text, "[killed after {secs} s]");
        } else {
            let _ = write!(text, "[exit code {code}]");
        }
        let result = Result::new(code == 0 && !late, text);
        Ok(Result { truncated: truncated || result.truncated, ..result })
    }
}

/// The beginning and the end of an output; what lies between is counted only.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let to_head = bytes.len().min(KEPT_BYTES - self.head.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        self.tail.extend(&bytes[to_head..]);
        let over = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    fn into_text(self) -> (String, bool) {
        let mut bytes = self.head;
        if self.left_out > 0 {
            let note = format!("\n[{} bytes left out]\n", self.left_out);
            bytes.extend_from_slice(note.as_bytes());
        }
        bytes.extend(self.tail);
        (String::from_utf8_lossy(&bytes).into_owned(), self.left_out > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, timeout_secs: Option<u64>) -> Result {
        let mut shell = Shell::new(PathBuf::from("/"), BTreeMap::new());
        shell.run(Input { command: command.to_owned(), timeout_secs }).await
    }

    #[tokio::test]
    async fn both_streams_come_in_order_and_the_code_last() {
        let result = run("echo a; echo b >&2; printf c; exit 3", None).await;
        assert_eq!(result.output, "a\nb\nc\n[exit code 3]");
        assert!(!result.ok);
    }

    #[tokio::test]
    async fn a_slow_command_is_killed_with_its_children() {
        let result = run("sleep 600 & sleep 600", Some(1)).await;
        assert_eq!(result.output, "[killed after 1 s]");
    }

    #[tokio::test]
    async fn a_process_in_the_background_does_not_hold_the_command() {
        let result = run("sleep 600 & echo pid $!", Some(60)).await;
        let pid = result.output.strip_prefix("pid ").unwrap().lines().next().unwrap();
        assert!(result.ok);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL)
            .unwrap();
    }

    #[tokio::test]
    async fn not_even_one_that_talks_on_does() {
        for talk in ["yes", "while :; do echo; sleep 0.1; done"] {
            let result = run(&format!("setsid sh -c '{talk}' & echo $! >&2"), Some(2)).await;
            let pid = result.output.lines().find_map(|line| line.parse().ok()).unwrap();
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            assert!(result.ok, "{talk}");
        }
    }

    #[tokio::test]
    async fn of_a_long_output_beginning_and_end_are_kept() {
        let result =
            run("echo first; head -c 9000000 /dev/zero | tr '\\0' x; echo; echo last", None).await;
        assert!(result.truncated && result.output.len() <= MAX_RESULT_BYTES);
        assert!(result.output.starts_with("first\n"));
        assert!(result.output.ends_with("last\n[exit code 0]"));
    }
}
