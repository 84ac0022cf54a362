//! The `command` provider: a shell command line of the environment, with the prompt on its standard input and
//! in a file. Its word is its exit code; it has no other.

use std::{os::unix::fs::OpenOptionsExt, path::Path, process::Stdio};

use nix::sys::signal::Signal;
use protocol::{
    event::{Exit, Phase, Stream},
    failure::FailureReason,
    sidecar::Launch,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::Adapter,
    failure::Failure,
    feed::Feed,
    output::Output,
    process::{Group, exit_code, not_started, signal_group},
};

/// Names the file that holds the prompt, byte for byte.
const PROMPT_FILE: &str = "OZMA_PROMPT_FILE";

pub(crate) struct CommandLine {
    command: String,
    launch: Launch,
}

impl CommandLine {
    pub(crate) fn new(launch: Launch) -> Result<Self, Failure> {
        match launch.harness.command.clone().filter(|command| !command.trim().is_empty()) {
            Some(command) => Ok(Self { command, launch }),
            None => Err(Failure::new(
                FailureReason::AgentInvocation,
                "the provider is \"command\", but the environment names no harness.command",
            )),
        }
    }

    fn spawn(&self, prompt_file: &Path) -> Result<Child, Failure> {
        Command::new("/bin/sh")
            .arg("-c")
            .arg(&self.command)
            .envs(self.launch.env.iter().map(|(name, value)| (name, value.expose())))
            .env(PROMPT_FILE, prompt_file)
            .current_dir(&self.launch.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| not_started("/bin/sh", &error))
    }
}

impl Adapter for CommandLine {
    async fn run(self, feed: Feed, cancel: CancellationToken) -> Result<Exit, Failure> {
        let prompt_file = write_prompt(&self.launch)?;
        let mut child = self.spawn(&prompt_file)?;
        let pid = child.id().unwrap_or_default();
        let group = Group::of(&child);
        let exited = CancellationToken::new();

        let mut stdin = child.stdin.take();
        let prompt = async {
            if let Some(stdin) = &mut stdin {
                // A command that does not read its input closes the pipe: its right.
                let _ = stdin.write_all(self.launch.prompt.as_bytes()).await;
            }
            stdin = None;
        };
        let stdout =
            child.stdout.take().map(|from| Output::new(from, Phase::Provider, Stream::Stdout));
        let stderr =
            child.stderr.take().map(|from| Output::new(from, Phase::Provider, Stream::Stderr));
        let wait = async {
            let status = tokio::select! {
                status = child.wait() => status,
                () = cancel.cancelled() => {
                    signal_group(pid, Signal::SIGTERM);
                    child.wait().await
                }
            };
            exited.cancel();
            status
        };
        // The prompt is written until it is read or the command is gone; never longer.
        let prompt = async {
            tokio::select! {
                () = prompt => {}
                () = exited.cancelled() => {}
            }
        };
        let (status, (), (), ()) =
            tokio::join!(wait, prompt, pump(stdout, &feed, &exited), pump(stderr, &feed, &exited));
        group.ended();
        let status = status.map_err(|error| {
            Failure::new(FailureReason::AgentExit, format!("the command was lost: {error}"))
        })?;
        let code = exit_code(status);
        let success = status.success();
        Ok(Exit {
            success,
            exit_code: Some(code),
            reason: (!success).then_some(FailureReason::AgentExit),
            message: if success {
                "the command ended with code 0".to_owned()
            } else {
                format!("the command ended with code {code}")
            },
            ..Exit::default()
        })
    }
}

async fn pump(
    output: Option<Output<impl AsyncRead + Unpin>>,
    feed: &Feed,
    exited: &CancellationToken,
) {
    let Some(mut output) = output else { return };
    while let Ok(event) = output.next(exited).await {
        feed.send(event).await;
    }
    if let Some(event) = output.rest() {
        feed.send(event).await;
    }
}

fn write_prompt(launch: &Launch) -> Result<std::path::PathBuf, Failure> {
    let folder = Path::new(&launch.state_directory);
    let path = folder.join("prompt.txt");
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        std::io::Write::write_all(&mut file, launch.prompt.as_bytes())
    };
    write().map_err(|error| {
        Failure::new(
            FailureReason::AgentInvocation,
            format!("could not write the prompt to {}: {error}", path.display()),
        )
    })?;
    Ok(path)
}
