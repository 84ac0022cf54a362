//! Cloning with the image's own git, or by a child of this binary where it has none.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use harness::failure::Failure;
use nix::sys::signal::Signal;
use protocol::event::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    askpass,
    failed::{broken, failed},
    job::Job,
    source::{Reference, Source},
};
use crate::{context::Context, process::Broken};

/// Longest answer of a child that is read: a commit, or why there is none.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Clones with git; the commit, and git's name and version.
pub(super) async fn clone(
    context: &Context,
    source: &Source,
    path: &Path,
) -> Result<(Option<String>, String), Failure> {
    let told = |why| broken(&source.url, why);
    let mut version = git(context, None);
    let version = context.printed(version.arg("--version"), 200).await.map_err(told)?;
    match &source.reference {
        None => clone_named(context, source, path, None).await?,
        Some(Reference::Name(name)) => clone_named(context, source, path, Some(name)).await?,
        Some(Reference::Commit(commit)) => fetch(context, source, path, commit).await?,
    }
    let mut head = git(context, None);
    head.arg("-C").arg(path).args(["rev-parse", "--verify", "-q", "HEAD^{commit}"]);
    let commit = match context.printed(&mut head, 200).await {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        // A repository without a commit, and that is no failure.
        Err(Broken::NotStarted(_)) => None,
        Err(stopped) => return Err(told(stopped)),
    };
    Ok((commit, version.replace("git version", "git")))
}

/// Git with nothing of the image's that could keep a token or run a program of the repository.
fn git(context: &Context, source: Option<&Source>) -> Command {
    // A submodule's address is the repository's word: from elsewhere it may not lead to files of this machine.
    let protocols = match source {
        Some(source) if source.local().is_some() => "file:git:http:https:ssh",
        _ => "git:http:https:ssh",
    };
    let mut command = Command::new("git");
    command
        .env_clear()
        .envs(context.base())
        .env("GIT_ALLOW_PROTOCOL", protocols)
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new")
        .args(["-c", "credential.helper=", "-c", "core.hooksPath=/dev/null"])
        .current_dir(&context.places.workspace);
    askpass::provide(&mut command, source.and_then(|source| source.login.as_ref()));
    command
}

async fn clone_named(
    context: &Context,
    source: &Source,
    path: &Path,
    name: Option<&str>,
) -> Result<(), Failure> {
    let mut command = git(context, Some(source));
    command.arg("clone");
    depth(&mut command, source);
    if let Some(name) = name {
        command.args(["--branch", name]);
    }
    if source.submodules {
        command.arg("--recurse-submodules");
        if source.depth.is_some() {
            command.arg("--shallow-submodules");
        }
    }
    command.args(["--", &source.url]).arg(path);
    run(context, source, &mut command).await
}

fn depth(command: &mut Command, source: &Source) {
    if let Some(depth) = source.depth {
        command.arg(format!("--depth={depth}"));
    }
}

/// A commit cannot be cloned by name, only fetched; and some servers give only what a branch or tag points to.
async fn fetch(
    context: &Context,
    source: &Source,
    path: &Path,
    commit: &str,
) -> Result<(), Failure> {
    let mut init = git(context, None);
    run(context, source, init.args(["init", "--quiet", "--"]).arg(path)).await?;
    let inside = || {
        let mut command = git(context, Some(source));
        command.arg("-C").arg(path);
        command
    };
    run(context, source, inside().args(["remote", "add", "origin", "--", &source.url])).await?;
    let mut one = inside();
    one.arg("fetch");
    depth(&mut one, source);
    one.args(["origin", commit]);
    if run(context, source, &mut one).await.is_err() {
        if let Some(order) = context.stop.ordered() {
            return Err(crate::exit::stopped(&order));
        }
        run(context, source, inside().args(["fetch", "--tags", "origin"])).await?;
    }
    run(context, source, inside().args(["checkout", "--quiet", "--detach", commit, "--"])).await?;
    if source.submodules {
        let mut update = inside();
        update.args(["submodule", "update", "--init", "--recursive"]);
        depth(&mut update, source);
        run(context, source, &mut update).await?;
    }
    Ok(())
}

async fn run(context: &Context, source: &Source, command: &mut Command) -> Result<(), Failure> {
    let ended = context
        .command(command, Phase::Clone)
        .await
        .map_err(|stopped| broken(&source.url, stopped))?;
    if ended.status.success() {
        return Ok(());
    }
    let code = harness::process::exit_code(ended.status);
    Err(failed(&source.url, &format!("git ended with code {code}: {}", ended.tail)))
}

/// Clones with the git built into this binary: in a child, so that it can be killed, and so that its memory is
/// not PID 1's.
pub(super) async fn without(
    context: &Context,
    source: &Source,
    path: &Path,
) -> Result<(Option<String>, String), Failure> {
    let told = |error: std::io::Error| failed(&source.url, &error.to_string());
    let extra_ca = context.spec.env.get("OZMA_EXTRA_CA_FILE").map(|path| path.expose().into());
    let job = Job { source: source.clone(), path: path.to_owned(), extra_ca };
    let job = serde_json::to_string(&job).expect("a job is plain data");
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("clone")
        .env_clear()
        .envs(context.base())
        .current_dir(&context.places.workspace)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = context.reaper.spawn(&mut command).map_err(told)?;
    let pid = child.pid;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(job.as_bytes()).await;
        }
        let (mut said, mut why) = (String::new(), String::new());
        let hear = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(MAX_ANSWER_BYTES).read_to_string(&mut said).await;
            }
        };
        let complain = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(MAX_ANSWER_BYTES).read_to_string(&mut why).await;
            }
        };
        tokio::join!(hear, complain);
        (child.wait().await, said, why)
    };
    let interrupt = || harness::process::signal_group(pid, Signal::SIGKILL);
    let (status, said, why) = context
        .unless_stopped(interrupt, work)
        .await
        .map_err(|stopped| broken(&source.url, stopped))?;
    if !status.map_err(told)?.success() {
        let why = why.trim();
        return Err(failed(&source.url, why.strip_prefix("ozma-sidecar: ").unwrap_or(why)));
    }
    let commit = Some(said.trim().to_owned()).filter(|commit| !commit.is_empty());
    Ok((commit, format!("built-in git {}", env!("CARGO_PKG_VERSION"))))
}
