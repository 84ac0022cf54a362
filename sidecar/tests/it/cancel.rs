//! Stopping: by the worker, by a signal, by the clock, in every phase.

use std::time::Duration;

use protocol::{
    event::{Event, Phase},
    failure::FailureReason,
    sidecar::StopCause,
};
use test_support::{repo::Repository, wait::eventually};

use crate::worker::{Worker, command, with_repo};

fn printed(wanted: &str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Output { text: Some(text), .. } if text == wanted)
}

#[tokio::test]
async fn a_provider_is_interrupted_its_way_and_what_it_made_is_kept() {
    let repo = Repository::with_files(&[("a.txt", "a\n")]);
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    let script = "trap 'echo interrupted; echo b >> a.txt; exit 0' TERM; sleep 600 >/dev/null 2>&1 & echo ready; wait";
    connection.assign(with_repo(command(script), repo.path())).await;
    connection.until(printed("ready")).await;
    connection.cancel(Duration::from_secs(20)).await;
    let heard = worker.finish(connection).await;
    let exit = heard.exit().unwrap();
    assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::TaskCancelled)));
    assert!(heard.stdout().contains(&"interrupted".to_owned()));
    let patch = String::from_utf8(heard.files()["changes.patch"].clone()).unwrap();
    assert!(patch.contains("+b"), "{patch}");
}

#[tokio::test]
async fn a_provider_that_does_not_listen_is_killed_with_all_it_started() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    let script =
        "trap '' TERM; setsid sleep 600 & echo $! > pid; echo ready; while :; do sleep 600; done";
    connection.assign(command(script)).await;
    connection.until(printed("ready")).await;
    connection.cancel(Duration::from_millis(100)).await;
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::TaskCancelled));
    let pid = std::fs::read_to_string(worker.root().join("workspace/pid")).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn set_up_is_cancelled_too_and_so_is_a_clone() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    let mut spec = command("echo never");
    spec.setup_commands = vec!["echo ready; sleep 600".to_owned()];
    connection.assign(spec).await;
    connection.until(printed("ready")).await;
    connection.cancel(Duration::from_secs(1)).await;
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::TaskCancelled));
    assert!(heard.stdout().is_empty());

    // A server that accepts and says nothing.
    let silence = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a/b.git", silence.local_addr().unwrap());
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(with_repo(command("echo never"), url)).await;
    silence.accept().await.unwrap();
    connection.cancel(Duration::from_secs(1)).await;
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::TaskCancelled));
}

#[tokio::test]
async fn a_git_that_hangs_before_it_clones_is_cancelled_too() {
    let programs = tempfile::tempdir().unwrap();
    let git = programs.path().join("git");
    std::fs::write(&git, "#!/bin/sh\ntouch \"$0.ran\"\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&git, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.path().display());
    let mut worker = Worker::start_with(&[("PATH", &path)]);
    let (mut connection, _) = worker.accept().await;
    connection.assign(with_repo(command("echo never"), "/nowhere/repo")).await;
    let ran = git.with_extension("ran");
    eventually("git runs", || std::future::ready(ran.exists().then_some(()))).await;
    connection.cancel(Duration::from_secs(1)).await;
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::TaskCancelled));
}

#[tokio::test]
async fn a_signal_to_the_sidecar_is_a_stop_of_nobodys() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("echo ready; sleep 600")).await;
    connection.until(printed("ready")).await;
    let pid = nix::unistd::Pid::from_raw(worker.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::GracefulShutdown));
}

#[tokio::test]
async fn a_time_that_is_over_names_its_phase() {
    let mut spec = command("echo never");
    spec.setup_commands = vec!["sleep 600".to_owned()];
    spec.timeouts.setup_secs = 1;
    let exit = Worker::start().run(spec).await.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::TaskTimeout));
    assert!(exit.message.contains("phase setup"), "{}", exit.message);

    let mut spec = command("sleep 600");
    spec.timeouts.run_secs = 1;
    let heard = Worker::start().run(spec).await;
    let exit = heard.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::TaskTimeout));
    assert!(exit.message.contains("phase provider"), "{}", exit.message);
    let failed = Event::PhaseFinished { phase: Phase::Provider, duration_ms: 0, ok: false };
    let same = |event: &Event| std::mem::discriminant(event) == std::mem::discriminant(&failed);
    assert!(heard.events().any(|event| same(&event)));
}

#[tokio::test]
async fn a_worker_that_goes_is_named() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("echo ready; sleep 600")).await;
    connection.until(printed("ready")).await;
    let cancel = protocol::sidecar::Cancel { cause: StopCause::Shutdown, grace_ms: 1_000 };
    connection.send(protocol::sidecar::ToSidecar::Cancel(cancel)).await;
    let exit = worker.finish(connection).await.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::GracefulShutdown));
}
