//! Running one command of ours to its end, with its output as events, and interrupting it when the run stops.

use std::{
    collections::VecDeque,
    io,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use harness::output::{Output, Silence};
use nix::sys::signal::Signal;
use protocol::event::{Event, Phase, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, record::Recorder, stop::Order};

/// How many of the last lines of the error stream are kept for a failure's message, and how long each.
const TAIL_LINES: usize = 5;
const TAIL_LINE_BYTES: usize = 400;

/// How long output may still be taken after everything was killed.
const AFTER_KILL: Duration = Duration::from_secs(3);

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last lines of its error stream.
    pub(crate) tail: String,
}

/// Why there is no status.
pub(crate) enum Broken {
    Stopped(Order),
    NotStarted(io::Error),
}

impl Context {
    /// Runs `command`; its output becomes events of `phase`.
    pub(crate) async fn command(
        &self,
        command: &mut Command,
        phase: Phase,
    ) -> Result<Ended, Broken> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.reaper.spawn(command).map_err(Broken::NotStarted)?;
        let pid = child.pid;
        let interrupt = || harness::process::signal_group(pid, Signal::SIGTERM);
        let exited = CancellationToken::new();
        let stdout = child.stdout.take().map(|from| Output::new(from, phase, Stream::Stdout));
        let stderr = child.stderr.take().map(|from| Output::new(from, phase, Stream::Stderr));
        let mut tail = VecDeque::new();
        let finish = async {
            let wait = async {
                let status = child.wait().await;
                exited.cancel();
                status
            };
            let (status, (), ()) = tokio::join!(
                wait,
                self.pump(stdout, &exited, None),
                self.pump(stderr, &exited, Some(&mut tail))
            );
            status
        };
        let status = self.unless_stopped(interrupt, finish).await?;
        let status = status.map_err(Broken::NotStarted)?;
        Ok(Ended { status, tail: Vec::from(tail).join("\n") })
    }

    /// Finishes `work`, a child's, unless the run is stopped: then the child is interrupted, after the grace
    /// everything is killed, and what it then says no longer counts.
    pub(crate) async fn unless_stopped<T>(
        &self,
        interrupt: impl Fn(),
        work: impl Future<Output = T>,
    ) -> Result<T, Broken> {
        let stopped = async {
            let order = self.stop.wait().await;
            interrupt();
            tokio::time::sleep(order.grace).await;
            self.reaper.kill_all().await;
            tokio::time::sleep(AFTER_KILL).await;
        };
        let finished = tokio::select! {
            finished = work => Some(finished),
            () = stopped => None,
        };
        match (finished, self.stop.ordered()) {
            (Some(finished), None) => Ok(finished),
            (_, Some(order)) => Err(Broken::Stopped(order)),
            (None, None) => unreachable!("only an order ends the work early"),
        }
    }

    /// Reads a stream to its end, or until its process is gone and it is silent; then on in the background.
    async fn pump<R: AsyncRead + Unpin + Send + 'static>(
        &self,
        output: Option<Output<R>>,
        exited: &CancellationToken,
        mut tail: Option<&mut VecDeque<String>>,
    ) {
        let Some(mut output) = output else { return };
        loop {
            match output.next(exited).await {
                Ok(event) => {
                    if let Some(tail) = &mut tail {
                        remember(tail, &event);
                    }
                    self.recorder.record(event).await;
                }
                Err(Silence::Ended) => return,
                Err(Silence::Held) => {
                    return self.held.add(read_on(output, Arc::clone(&self.recorder)));
                }
            }
        }
    }

    /// Runs `command` and returns what it printed, up to `max` bytes.
    pub(crate) async fn printed(&self, command: &mut Command, max: u64) -> Result<String, Broken> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = self.reaper.spawn(command).map_err(Broken::NotStarted)?;
        let pid = child.pid;
        let work = async {
            let mut printed = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(max).read_to_end(&mut printed).await?;
            }
            let status = child.wait().await?;
            if !status.success() {
                return Err(io::Error::other(format!("{status}")));
            }
            Ok(String::from_utf8_lossy(&printed).trim().to_owned())
        };
        let interrupt = || harness::process::signal_group(pid, Signal::SIGTERM);
        self.unless_stopped(interrupt, work).await?.map_err(Broken::NotStarted)
    }
}

async fn read_on<R: AsyncRead + Unpin>(mut output: Output<R>, recorder: Arc<Recorder>) {
    let never = CancellationToken::new();
    while let Ok(event) = output.next(&never).await {
        recorder.record(event).await;
    }
}

fn remember(tail: &mut VecDeque<String>, event: &Event) {
    let Event::Output { text: Some(text), .. } = event else { return };
    let line = text.rsplit('\r').find(|line| !line.trim().is_empty()).unwrap_or_default();
    if line.is_empty() {
        return;
    }
    if tail.len() == TAIL_LINES {
        tail.pop_front();
    }
    tail.push_back(line[..line.floor_char_boundary(TAIL_LINE_BYTES)].to_owned());
}
