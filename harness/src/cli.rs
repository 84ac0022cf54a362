//! The providers with a command line of their own: started as a child in a group of its own, its output read line by
//! line as it comes. Everything that differs between them is in [`plan`] and in their dialect.

mod claude;
mod codex;
mod gemini;
mod home;
mod opencode;
mod plan;
mod preview;
mod tail;
mod transcript;

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use protocol::{
    event::{Event, Exit, Phase, Stream},
    failure::FailureReason,
    ids::is_session_name,
    sidecar::{HARNESS_MOUNT, Launch},
    spec::ProviderKind,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{plan::Plan, tail::Tail, transcript::Transcript};
use crate::{
    adapter::Adapter,
    credentials::PROVIDER_CREDENTIALS,
    dialect::{Dialect, Said, Told},
    endpoint,
    failure::{Ended, Failure},
    feed::Feed,
    lines::{LineReader, Piece},
    output::Output,
    process::{Group, exit_code, signal_group},
    secrets::Secrets,
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

/// What is always read of it then, in bytes, however long that takes: no pipe as the kernel makes it holds more, so
/// all of the provider's own words are in it.
const LEFT_BYTES: usize = 192 << 10;

/// One of them, ready to run.
pub(crate) struct Cli {
    launch: Launch,
    plan: Plan,
    dialect: Dialect,
    secrets: Secrets,
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
        // It becomes an argument, and came out of a container once.
        if launch.harness.resume.as_deref().is_some_and(|session| !is_session_name(session)) {
            let what = "what the run should go on with is no name of a session";
            return Err(Failure::new(FailureReason::SessionGone, what));
        }
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
        let mut dialect = Dialect::of(provider)
            .ok_or_else(|| Failure::new(FailureReason::AgentInvocation, "no command line"))?;
        if let (Dialect::Codex(codex), Some(session)) = (&mut dialect, &launch.harness.resume) {
            codex.goes_on(codex::used(&home::sessions(&launch), session));
        }
        let secrets = Secrets::of(&launch, Some(http));
        Ok(Self { launch, plan, dialect, secrets })
    }

    fn spawn(&self) -> Result<Child, Failure> {
        self.plan.write_files().map_err(|error| {
            let text = format!("could not write the provider's configuration: {error}");
            Failure::new(FailureReason::AgentInvocation, text)
        })?;
        let mut command = Command::new(self.plan.program);
        command.args(&self.plan.args).current_dir(&self.launch.directory);
        // A key of the image's or of whoever started this would stand beside the run's own.
        for name in plan::NOT_INHERITED.iter().chain(&PROVIDER_CREDENTIALS) {
            command.env_remove(name);
        }
        let values = self.launch.env.iter().filter(|(name, _)| !plan::is_ours(name));
        command.envs(values.map(|(name, value)| (name, value.expose())));
        command.envs(self.plan.env.iter().map(|(name, value)| (name, value.expose())));
        // OpenCode believes it more than the kernel.
        command.env("PWD", &self.launch.directory);
        command.env("PATH", home::search_path(&self.launch));
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
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let refused = error.kind() == std::io::ErrorKind::PermissionDenied;
        let found = home::find(program, &home::search_path(&self.launch));
        let text = match found {
            _ if missing && !Path::new(&self.launch.directory).is_dir() => {
                format!("could not start {program}: there is no folder {}", self.launch.directory)
            }
            // A file that is there and cannot be found is one whose loader or interpreter is not there.
            Some(file) if missing && file.starts_with(HARNESS_MOUNT) => format!(
                "could not start {}: the image has not what runs it, its C library or its interpreter: take one \
                 with glibc (Debian, Ubuntu, Fedora and the like)",
                file.display()
            ),
            Some(file) if missing => format!(
                "could not start {}: the image has not what runs it, its C library or its interpreter: {}",
                file.display(),
                self.fix()
            ),
            // A folder of PATH that the run's user may not enter is reported as a refusal.
            None if missing || refused => {
                format!("{program} is not in the image and not on its PATH: {}", self.fix())
            }
            _ => format!("could not start {program}: {error}"),
        };
        Failure::new(FailureReason::AgentInvocation, text)
    }

    fn fix(&self) -> String {
        format!(
            "add it to the environment's image, or make its harness image on the worker with `ozma harness build {}`",
            self.launch.harness.provider.as_str()
        )
    }

    /// Nothing of the configuration made for it stays: it may hold secrets.
    fn tidy(&self) -> Option<Event> {
        let error = home::clear(&self.plan.folder).err()?;
        let folder = self.plan.folder.display();
        Some(Event::Notice { text: format!("could not remove {folder}: {error}") })
    }
}

impl Adapter for Cli {
    async fn run(mut self, feed: Feed, cancel: CancellationToken) -> Result<Exit, Failure> {
        let ended = self.drive(&feed, cancel).await;
        if let Some(event) = self.tidy() {
            feed.send(event).await;
        }
        ended
    }
}

impl Cli {
    async fn drive(&mut self, feed: &Feed, cancel: CancellationToken) -> Result<Exit, Failure> {
        let mut transcript =
            Transcript::begin(Path::new(&self.launch.state_directory)).map_err(|error| {
                let text = format!("could not begin the transcript: {error}");
                Failure::new(FailureReason::AgentInvocation, text)
            })?;
        let mut child = self.spawn()?;
        let group = Group::of(&child);
        for text in std::mem::take(&mut self.plan.notices) {
            feed.send(Event::Notice { text }).await;
        }
        let pid = child.id().unwrap_or_default();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (exited, heard) = (CancellationToken::new(), Heard::default());
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
        let mut ear = Ear {
            dialect: &mut self.dialect,
            said: &mut said,
            transcript: &mut transcript,
            secrets: &self.secrets,
            feed,
        };
        let read = async {
            if let Some(stdout) = stdout {
                ear.listen(stdout, &exited, &heard, &stuck).await;
            }
        };
        let mut tail = Tail::default();
        let complain = async {
            if let Some(stderr) = stderr {
                grumble(stderr, &mut tail, &self.secrets, feed, &exited, &heard).await;
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
        drop(group);
        let status = status.map_err(|error| {
            Failure::new(FailureReason::AgentExit, format!("the provider was lost: {error}"))
        })?;
        for event in self.dialect.finish() {
            feed.send(event).await;
        }
        let stderr = tail.text();
        // One that had given its final word and would not go has said all there was to say.
        if let Some(Cause::Idle(idle)) = cause
            && said.end != Some(true)
        {
            let silence = format!("nothing for {} s and was stopped", idle.as_secs());
            // It sleeps as long as the endpoint asked it to.
            let Some(told) = said.retry.take() else {
                let text = format!("the provider said {silence}");
                return Err(Failure::new(FailureReason::AgentLimit, text));
            };
            let message = format!("{}; it would have tried again, said {silence}", told.message);
            said.error = Some(Told { message, ..told });
        }
        let ended = Ended { exit_code: exit_code(status), said: &said, stderr: &stderr };
        match cause {
            Some(Cause::Cancelled) => Err(Failure::cancelled()),
            Some(Cause::Idle(_) | Cause::Stuck) | None => Ok(self.dialect.judge(&ended)),
        }
    }
}

/// When something was last heard, and whether it is still on its way: nobody is silent who waits to be listened to.
#[derive(Default)]
struct Heard {
    again: tokio::sync::Notify,
    waiting: AtomicU32,
}

impl Heard {
    /// Something was said, and goes on its way by `taken`.
    async fn take(&self, taken: impl Future<Output = ()>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        taken.await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.again.notify_one();
    }

    fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Until there is a reason to end it.
async fn interrupted(
    cancel: &CancellationToken,
    stuck: &CancellationToken,
    heard: &Heard,
    idle: Duration,
) -> Cause {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Cause::Cancelled,
            () = stuck.cancelled() => return Cause::Stuck,
            () = heard.again.notified() => {}
            () = tokio::time::sleep(idle), if !idle.is_zero() => {
                if !heard.waits() {
                    return Cause::Idle(idle);
                }
            }
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

/// Who hears what a provider prints.
struct Ear<'a> {
    dialect: &'a mut Dialect,
    said: &'a mut Said,
    transcript: &'a mut Transcript,
    secrets: &'a Secrets,
    feed: &'a Feed,
}

impl Ear<'_> {
    async fn listen(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        exited: &CancellationToken,
        heard: &Heard,
        stuck: &CancellationToken,
    ) {
        let mut reader = LineReader::new(stdout, MAX_LINE_BYTES);
        let mut until: Option<Instant> = None;
        let mut left = LEFT_BYTES;
        loop {
            if left == 0 && until.is_some_and(|until| until < Instant::now()) {
                break;
            }
            let piece = tokio::select! {
                biased;
                piece = reader.next() => piece,
                () = async {
                    exited.cancelled().await;
                    tokio::time::sleep_until(*until.get_or_insert_with(|| Instant::now() + LINGER)).await;
                } => break,
            };
            let Ok(Some(piece)) = piece else { break };
            if exited.is_cancelled() {
                until.get_or_insert_with(|| Instant::now() + LINGER);
                let (Piece::Line(bytes) | Piece::Part(bytes)) = &piece;
                left = left.saturating_sub(bytes.len() + 1);
            }
            heard.take(self.take(piece)).await;
            if self.said.stuck.is_some() {
                stuck.cancel();
            }
        }
        if let Some(piece) = reader.rest() {
            self.take(piece).await;
        }
    }

    async fn take(&mut self, piece: Piece) {
        let (bytes, newline) = match piece {
            Piece::Line(bytes) => (bytes, true),
            Piece::Part(bytes) => (bytes, false),
        };
        let bytes = self.secrets.hide(bytes);
        if let Some(event) = self.transcript.write(&bytes, newline) {
            self.feed.send(event).await;
        }
        for event in self.dialect.read(&bytes, self.said) {
            self.feed.send(event).await;
        }
    }
}

/// Standard error is shown as it comes, and its end kept for the judgement.
async fn grumble(
    stderr: impl AsyncRead + Unpin,
    tail: &mut Tail,
    secrets: &Secrets,
    feed: &Feed,
    exited: &CancellationToken,
    heard: &Heard,
) {
    let mut output = Output::new(stderr, Phase::Provider, Stream::Stderr);
    while let Ok(event) = output.next(exited).await {
        let event = secrets.hide_in(event);
        tail.keep(&event);
        heard.take(feed.send(event)).await;
    }
    if let Some(event) = output.rest() {
        let event = secrets.hide_in(event);
        tail.keep(&event);
        feed.send(event).await;
    }
}
