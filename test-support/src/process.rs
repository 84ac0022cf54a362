//! Real processes under test: their logs are kept, they can be killed hard, and they end with the test.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::wait::eventually;

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command` with nothing on standard input and both outputs kept, line by line.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("start {name} ({command:?}): {error}"),
        };
        let lines = Arc::default();
        keep(child.stdout.take(), &lines);
        keep(child.stderr.take(), &lines);
        Self { name: name.to_owned(), child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far, both outputs together.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits for the first line that `pick` takes, earlier ones included.
    ///
    /// # Panics
    /// None comes in time, or the process ends first; the text carries its log.
    pub async fn line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let found = eventually(what, || {
            let ended = self.child.try_wait().expect("a child can be asked").is_some();
            let found = self.log().lines().find_map(&pick);
            // Once more after the end: its last lines may still be on their way through the pipe.
            let answer = match found {
                Some(found) => Some(Ok(found)),
                None if ended => Some(Err(())),
                None => None,
            };
            async move { answer }
        })
        .await;
        found.unwrap_or_else(|()| panic!("{} ended before {what}:\n{}", self.name, self.log()))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; see [`ended`](Self::ended).
    ///
    /// # Panics
    /// It is gone already.
    pub fn terminate(&self) {
        kill_process(self.process(), Signal::TERM).expect("the process is there");
    }

    /// SIGSTOP: the process is there and does nothing, until [`resume`](Self::resume).
    ///
    /// # Panics
    /// It is gone already.
    pub fn pause(&self) {
        kill_process(self.process(), Signal::STOP).expect("the process is there");
    }

    /// # Panics
    /// It is gone already.
    pub fn resume(&self) {
        kill_process(self.process(), Signal::CONT).expect("the process is there");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, || {
            let status = self.child.try_wait().expect("a child can be asked");
            async move { status }
        })
        .await
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // A failing test's report: the test harness shows it with the failure.
            #[expect(clippy::print_stderr, reason = "the log belongs to the test's failure")]
            {
                eprintln!("---- log of {} ----\n{}", self.name, self.log());
            }
        }
    }
}

/// SIGKILL for a process that is not our child: PID 1 of a container for example. `still` is asked when the process
/// can no longer be mistaken for a later one of the same number, and says whether it is the one that is meant.
/// Whether the signal was sent.
pub fn kill_stranger(pid: u32, still: impl FnOnce() -> bool) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return false;
    };
    still() && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

fn keep(output: Option<impl Read + Send + 'static>, lines: &Arc<Mutex<Vec<String>>>) {
    let output = output.expect("it was asked for");
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_a_line_and_kills_hard() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; echo up on port 12; while :; do sleep 1; done"]);
        let mut process = Process::start("a shell", command);
        let port = process
            .line("its port", |line| line.strip_prefix("up on port ")?.parse::<u16>().ok())
            .await;
        assert_eq!(port, 12);
        process.kill();
        assert!(!process.ended().await.success());
    }
}
