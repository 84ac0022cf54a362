//! The providers with a command line of their own: started as a child in a group of its own, its output read line by
//! line as it comes. Everything that differs between them is in [`plan`] and in their dialect.

mod claude;
mod codex;
mod gemini;
mod opencode;
mod plan;
mod tail;

use std::{path::Path, process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use protocol::{
    event::{Event, Exit, Phase, Stream},
    failure::FailureReason,
    sidecar::Launch,
    spec::ProviderKind,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{plan::Plan, tail::Tail};
use crate::{
    adapter::Adapter,
    dialect::{Dialect, Said},
    endpoint,
    failure::{Ended, Failure},
    feed::Feed,
    lines::{LineReader, Piece},
    output::Output,
    process::{exit_code, signal_group},
};

/// Longest line of a provider's output that is read as one, in bytes. A longer one is no event of any of them: it is
/// shown as output, in parts.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;

/// From the interrupt that a provider understands to the signal that it does not survive.
const INTERRUPT_FOR: Duration = Duration::from_secs(4);

/// How long a provider may be silent where the run does not say.
const IDLE: Duration = Duration::from_mins(30);

/// How long standard output is still read after the process has ended: its children may hold it open.
const LINGER: Duration = Duration::from_millis(500);

/// One of them, ready to run.
pub(crate) struct Cli {
    launch: Launch,
    plan: Plan,
    dialect: Dialect,
}

/// Why a provider was ended before its own end.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Cancelled,
    Idle(Duration),
    Stuck,
}

impl Cli {
    /// # Errors
    /// No endpoint, or one that this provider cannot speak with.
    pub(crate) fn new(launch: Launch) -> Result<Self, Failure> {
        let provider = launch.harness.provider;
        let endpoint = endpoint::choose(&launch)?;
        let Some(http) = endpoint.http() else {
            let what = "a scripted model answers the built-in agent only";
            return Err(Failure::new(FailureReason::AgentInvocation, what));
        };
        let plan = match provider {
            ProviderKind::Claude => Ok(claude::plan(&launch, http)),
            ProviderKind::Codex => codex::plan(&launch, http),
            ProviderKind::Opencode => opencode::plan(&launch, &endpoint, http),
            ProviderKind::Gemini => gemini::plan(&launch, http),
            ProviderKind::Agent | ProviderKind::Command => Err("has no command line".to_owned()),
        };
        let plan = plan.map_err(|why| {
            Failure::new(FailureReason::AgentInvocation, format!("{}: {why}", provider.as_str()))
        })?;
        let dialect = Dialect::of(provider)
            .ok_or_else(|| Failure::new(FailureReason::AgentInvocation, "no command line"))?;
        Ok(Self { launch, plan, dialect })
    }

    fn spawn(&self) -> Result<Child, Failure> {
        self.plan.write_files().map_err(|error| {
            let text = format!("could not write the provider's configuration: {error}");
            Failure::new(FailureReason::AgentInvocation, text)
        })?;
        let mut command = Command::new(self.plan.program);
        command.args(&self.plan.args).current_dir(&self.launch.directory);
        for name in plan::NOT_INHERITED {
            command.env_remove(name);
        }
        let values = self.launch.env.iter().filter(|(name, _)| !plan::is_ours(name));
        command.envs(values.map(|(name, value)| (name, value.expose())));
        command.envs(self.plan.env.iter().map(|(name, value)| (*name, value.expose())));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.not_started(&error))
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        let program = self.plan.program;
        let text = if error.kind() == std::io::ErrorKind::NotFound {
            format!(
                "{program} is not in the image and not on its PATH: add it to the environment's image, or make its \
                 harness image on the worker with `ozma harness build {}`",
                self.launch.harness.provider.as_str()
            )
        } else {
            format!("could not start {program}: {error}")
        };
        Failure::new(FailureReason::AgentInvocation, text)
    }
}

impl Adapter for Cli {
    async fn run(mut self, feed: Feed, cancel: CancellationToken) -> Result<Exit, Failure> {
        let mut child = self.spawn()?;
        for text in std::mem::take(&mut self.plan.notices) {
            feed.send(Event::Notice { text }).await;
        }
        let pid = child.id().unwrap_or_default();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (exited, heard) = (CancellationToken::new(), tokio::sync::Notify::new());
        let idle = self.launch.harness.idle_secs.map_or(IDLE, Duration::from_secs);
        let stuck = CancellationToken::new();

        let tell = async {
            let Some(mut stdin) = stdin else { return };
            let prompt = self.launch.prompt.as_bytes();
            tokio::select! {
                // One that does not read its input closes the pipe: its right.
                _ = stdin.write_all(prompt) => {}
                () = exited.cancelled() => {}
            }
        };
        let mut said = Said::default();
        let read = async {
            if let Some(stdout) = stdout {
                listen(stdout, &mut self.dialect, &mut said, &feed, &exited, &heard, &stuck).await;
            }
        };
        let mut tail = Tail::default();
        let complain = async {
            if let Some(stderr) = stderr {
                grumble(stderr, &mut tail, &feed, &exited, &heard).await;
            }
        };
        let wait = async {
            let ended = tokio::select! {
                status = child.wait() => Ok(status),
                cause = interrupted(&cancel, &stuck, &heard, idle) => Err(cause),
            };
            let ended = match ended {
                Ok(status) => (status, None),
                Err(cause) => (end(&mut child, pid).await, Some(cause)),
            };
            exited.cancel();
            ended
        };
        let ((status, cause), (), (), ()) = tokio::join!(wait, tell, read, complain);
        // What it left running is of no use to anybody; whoever left the group is the container's to end.
        signal_group(pid, Signal::SIGKILL);
        let status = status.map_err(|error| {
            Failure::new(FailureReason::AgentExit, format!("the provider was lost: {error}"))
        })?;
        for event in self.dialect.finish() {
            feed.send(event).await;
        }
        let stderr = tail.text();
        let ended = Ended { exit_code: exit_code(status), said: &said, stderr: &stderr };
        match cause {
            Some(Cause::Cancelled) => Err(Failure::cancelled()),
            Some(Cause::Idle(idle)) => Err(Failure::new(
                FailureReason::AgentLimit,
                format!("the provider said nothing for {} s and was stopped", idle.as_secs()),
            )),
            Some(Cause::Stuck) | None => Ok(self.dialect.judge(&ended)),
        }
    }
}

/// Until there is a reason to end it.
async fn interrupted(
    cancel: &CancellationToken,
    stuck: &CancellationToken,
    heard: &tokio::sync::Notify,
    idle: Duration,
) -> Cause {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Cause::Cancelled,
            () = stuck.cancelled() => return Cause::Stuck,
            () = heard.notified() => {}
            () = tokio::time::sleep(idle), if !idle.is_zero() => return Cause::Idle(idle),
        }
    }
}

/// Its own interrupt first, so that it can write down its session; then the end.
async fn end(child: &mut Child, pid: u32) -> std::io::Result<std::process::ExitStatus> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        signal_group(pid, signal);
        if let Ok(status) = tokio::time::timeout(INTERRUPT_FOR, child.wait()).await {
            return status;
        }
    }
    signal_group(pid, Signal::SIGKILL);
    child.wait().await
}

async fn listen(
    stdout: impl AsyncRead + Unpin,
    dialect: &mut Dialect,
    said: &mut Said,
    feed: &Feed,
    exited: &CancellationToken,
    heard: &tokio::sync::Notify,
    stuck: &CancellationToken,
) {
    let mut reader = LineReader::new(stdout, MAX_LINE_BYTES);
    let mut until: Option<Instant> = None;
    loop {
        let piece = tokio::select! {
            biased;
            piece = reader.next() => piece,
            () = async {
                exited.cancelled().await;
                tokio::time::sleep_until(*until.get_or_insert_with(|| Instant::now() + LINGER)).await;
            } => break,
        };
        let Ok(Some(Piece::Line(line) | Piece::Part(line))) = piece else { break };
        heard.notify_one();
        for event in dialect.read(&line, said) {
            feed.send(event).await;
        }
        if said.stuck.is_some() {
            stuck.cancel();
        }
    }
    if let Some(Piece::Line(line) | Piece::Part(line)) = reader.rest() {
        for event in dialect.read(&line, said) {
            feed.send(event).await;
        }
    }
}

/// Standard error is shown as it comes, and its end kept for the judgement.
async fn grumble(
    stderr: impl AsyncRead + Unpin,
    tail: &mut Tail,
    feed: &Feed,
    exited: &CancellationToken,
    heard: &tokio::sync::Notify,
) {
    let mut output = Output::new(stderr, Phase::Provider, Stream::Stderr);
    while let Ok(event) = output.next(exited).await {
        heard.notify_one();
        tail.keep(&event);
        feed.send(event).await;
    }
    if let Some(event) = output.rest() {
        tail.keep(&event);
        feed.send(event).await;
    }
}

/// A folder of the harness's own for one provider.
fn folder(launch: &Launch, name: &str) -> std::path::PathBuf {
    Path::new(&launch.state_directory).join(name)
}
