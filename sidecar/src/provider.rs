//! The provider's phase: the harness in an unprivileged child, its events taken with suspicion.

use std::path::Path;

use harness::{
    failure::Failure,
    lines::{LineReader, Piece},
};
use nix::sys::signal::Signal;
use protocol::{
    event::{Event, Exit},
    failure::FailureReason,
    limits::MAX_SIDECAR_LINE_BYTES,
    secret::Secret,
    sidecar::{FromHarness, HARNESS_MOUNT, Launch},
};
use tokio::io::{AsyncRead, AsyncWriteExt};

use crate::{
    collect::Links,
    context::Context,
    exit::{not_started, silent, stopped},
    process::Broken,
};

pub(crate) async fn run(
    context: &Context,
    directory: &Path,
    links: &mut Links,
) -> Result<Exit, Failure> {
    let tools = mounted(context);
    let mut env = context.spec.env.clone();
    if let (Some(tools), Some(path)) = (&tools, env.get_mut("PATH")) {
        *path = Secret::new(format!("{}:{tools}", path.expose()));
    }
    let launch = Launch {
        prompt: context.spec.prompt.clone(),
        directory: directory.display().to_string(),
        state_directory: context.places.state.display().to_string(),
        registry: true,
        session_directory: context
            .places
            .session(context.spec.session.is_some())
            .display()
            .to_string(),
        env,
        harness: context.spec.harness.clone(),
    };
    let launch = serde_json::to_string(&launch).expect("a launch is plain data");
    let mut command = context.agent("harness");
    if let Some(tools) = tools {
        let mut path = context.vars.path().to_owned();
        path.push(format!(":{tools}"));
        command.env("PATH", path);
    }
    let mut child = context
        .reaper
        .spawn(&mut command)
        .map_err(|error| not_started(FailureReason::AgentInvocation, "the harness", &error))?;
    let pid = child.pid;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let work = async {
        let tell = async {
            if let Some(mut stdin) = stdin {
                // If it does not listen, its silence will say so.
                let _ = stdin.write_all(launch.as_bytes()).await;
            }
        };
        let listen = async {
            match stdout {
                Some(stdout) => listen(context, stdout, links).await,
                None => None,
            }
        };
        let ((), exit) = tokio::join!(tell, listen);
        if exit.is_none() {
            // It may have closed its output and live on: then it broke its protocol.
            harness::process::signal_group(pid, Signal::SIGKILL);
        }
        let status = child.wait().await;
        (exit, status)
    };
    let interrupt = || harness::process::signal_group(pid, Signal::SIGTERM);
    match context.unless_stopped(interrupt, work).await {
        Ok((Some(exit), _)) => Ok(exit),
        Ok((None, Ok(status))) => Ok(silent(status)),
        Ok((None, Err(error))) => {
            Err(not_started(FailureReason::SidecarLost, "the harness to its end", &error))
        }
        Err(Broken::Stopped(order)) => Err(stopped(&order)),
        Err(Broken::NotStarted(error)) => {
            Err(not_started(FailureReason::AgentInvocation, "the harness", &error))
        }
    }
}

/// The folder with the provider's command line that the worker mounted, if it did. It comes last on the search path:
/// what the environment's image has is what its author chose.
fn mounted(context: &Context) -> Option<String> {
    if context.unisolated {
        return None;
    }
    let folder = format!("{HARNESS_MOUNT}/{}/bin", context.spec.harness.provider.as_str());
    Path::new(&folder).is_dir().then_some(folder)
}

/// Records what the child says; its last word, if it has one.
async fn listen(
    context: &Context,
    stdout: impl AsyncRead + Unpin,
    links: &mut Links,
) -> Option<Exit> {
    let mut reader = LineReader::new(stdout, MAX_SIDECAR_LINE_BYTES);
    while let Ok(Some(Piece::Line(line))) = reader.next().await {
        match FromHarness::parse(&String::from_utf8_lossy(&line)) {
            Ok(FromHarness::Event(event)) if may_say(&event) => {
                links.search(&event);
                context.recorder.record(event).await;
            }
            Ok(FromHarness::Exit(exit)) => return Some(exit),
            Ok(FromHarness::Event(_) | FromHarness::Unknown(_)) | Err(_) => {
                crate::say::say("the harness said what it may not say");
            }
        }
    }
    None
}

/// The provider runs as the harness's own user and might speak in its place: never of the run's state or
/// artifacts.
fn may_say(event: &Event) -> bool {
    matches!(
        event,
        Event::Output { .. }
            | Event::Model { .. }
            | Event::Text { .. }
            | Event::ToolCall { .. }
            | Event::ToolResult { .. }
            | Event::Session { .. }
            | Event::ModelRetry { .. }
            | Event::Raw { .. }
            | Event::Usage { .. }
            | Event::Answer { .. }
            | Event::Notice { .. }
            | Event::Truncated { .. }
    )
}
