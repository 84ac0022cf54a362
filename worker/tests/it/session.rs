//! What a conversation keeps between its runs: found again by the next one, by nobody else, and bounded.

use protocol::{
    failure::FailureReason,
    link::FromWorker,
    spec::{RunSpec, SessionSpec},
};
use test_support::{
    image::{self, docker},
    wait::eventually,
};

use crate::rig::{Rig, command, container};

const MIB: u64 = 1 << 20;

/// A run that begins a conversation.
fn first(line: &str) -> RunSpec {
    let mut spec = command(line);
    let conversation_id = spec.run_id.clone();
    spec.session = Some(SessionSpec { conversation_id, resume: false });
    spec
}

/// A run that goes on with that of `earlier`.
fn next(earlier: &RunSpec, line: &str) -> RunSpec {
    let mut spec = command(line);
    let session = earlier.session.clone().unwrap();
    spec.session = Some(SessionSpec { resume: true, ..session });
    spec
}

async fn rig(change: impl FnOnce(&mut worker::Config)) -> Rig {
    let mut rig = Rig::new().await;
    rig.config.min_free_bytes = 0;
    rig.config.disk_check_ms = 100;
    rig.config.sweep_ms = 100;
    change(&mut rig.config);
    rig.start().await;
    rig
}

async fn said(rig: &Rig, spec: &RunSpec) -> String {
    rig.plane.assign(spec);
    let report = rig.plane.report(spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    rig.plane.output(spec)
}

async fn failure(rig: &Rig, spec: &RunSpec) -> (FailureReason, String) {
    rig.plane.assign(spec);
    let report = rig.plane.report(spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    (failed.failure_reason.unwrap(), failed.message)
}

fn volumes(spec: &RunSpec) -> Vec<String> {
    let id = &spec.session.as_ref().unwrap().conversation_id;
    let filter = format!("label=ozma.conversation={id}");
    let list = docker(&["volume", "ls", "--quiet", "--filter", &filter], &[]);
    list.lines().map(str::to_owned).collect()
}

/// A worker that keeps nothing takes the place of this one, and everything goes.
async fn forget(mut rig: Rig) {
    rig.kill();
    rig.config.sessions.keep_secs = 0;
    rig.start().await;
    rig.finish().await;
}

const LEAVE: &str =
    "echo one > notes; echo two > /ozma/session/notes; ls -ldn . /ozma/session | cut -c 1-10";
const FIND: &str =
    "cat notes /ozma/session/notes; echo more >> notes; stat -c %u . notes /ozma/session by-root";

#[tokio::test]
async fn a_follow_up_finds_what_the_run_before_it_left() {
    let mut rig = rig(|_| {}).await;
    let begun = {
        let mut spec = first(LEAVE);
        spec.setup_commands = vec!["touch by-root".to_owned()];
        spec
    };
    assert_eq!(said(&rig, &begun).await, "drwxr-xr-x\ndrwx------\n");
    let id = &begun.run_id;
    let mut names = volumes(&begun);
    names.sort();
    assert_eq!(names, [format!("ozma-session-{id}"), format!("ozma-workspace-{id}")]);
    for name in &names {
        let labels = docker(&["volume", "inspect", "--format", "{{json .Labels}}", name], &[]);
        for label in
            ["\"ozma.tenant\":\"tenant\"", &format!("\"ozma.worker\":\"{}\"", rig.config.worker_id)]
        {
            assert!(labels.contains(label), "{labels}");
        }
    }
    // In another life of the worker as well.
    rig.kill();
    rig.start().await;
    let follow_up = {
        let mut spec = next(&begun, FIND);
        spec.setup_commands = vec!["echo root >> by-root".to_owned()];
        spec
    };
    assert_eq!(said(&rig, &follow_up).await, "one\ntwo\n10001\n10001\n10001\n10001\n");
    assert_eq!(said(&rig, &next(&begun, "cat notes")).await, "one\nmore\n");

    // What is another tenant's is not there.
    let mut others = next(&begun, "cat notes");
    others.tenant_id = "another".parse().unwrap();
    let (reason, message) = failure(&rig, &others).await;
    assert_eq!(reason, FailureReason::SessionGone, "{message}");
    assert!(message.contains(&rig.config.worker_id), "{message}");
    assert!(!rig.plane.output(&others).contains("one"));
    forget(rig).await;
    assert!(volumes(&begun).is_empty());
}

#[tokio::test]
async fn what_is_gone_is_said_before_there_is_a_container() {
    let rig = rig(|_| {}).await;
    let begun = first("echo one > notes");
    let (reason, message) = failure(&rig, &next(&begun, "true")).await;
    assert_eq!(reason, FailureReason::SessionGone, "{message}");
    said(&rig, &begun).await;
    eventually("its container to go", || async { (rig.homes() == 0).then_some(()) }).await;
    docker(&["volume", "rm", &format!("ozma-session-{}", begun.run_id)], &[]);
    let mut half = next(&begun, "true");
    half.image = "ozma-test:never-made".to_owned();
    assert_eq!(failure(&rig, &half).await.0, FailureReason::SessionGone);
    assert!(!reason.retryable());
    forget(rig).await;
}

#[tokio::test]
async fn another_attempt_of_the_first_run_begins_anew() {
    let rig = rig(|_| {}).await;
    let begun = first("echo one > notes; exit 3");
    assert_eq!(failure(&rig, &begun).await.0, FailureReason::AgentExit);
    let mut again = begun.clone();
    again.execution_id = command("").execution_id;
    again.harness.command = Some("ls".to_owned());
    assert_eq!(said(&rig, &again).await, "");
    forget(rig).await;
}

#[tokio::test]
async fn nothing_is_taken_from_a_run_that_lives_and_the_rest_goes_with_it() {
    let mut rig = rig(|config| config.sessions.keep_secs = 0).await;
    let alive =
        first("echo up > notes; cat notes; while [ ! -e /tmp/go ]; do sleep 0.05; done; cat notes");
    rig.plane.assign(&alive);
    rig.plane.output_line(&alive, "up").await;
    let other = first("echo other");
    said(&rig, &other).await;
    eventually("the other's to go", || async { volumes(&other).is_empty().then_some(()) }).await;
    rig.kill();
    rig.start().await;
    let other = first("echo other");
    said(&rig, &other).await;
    eventually("the other's to go", || async { volumes(&other).is_empty().then_some(()) }).await;
    assert_eq!(volumes(&alive).len(), 2);
    docker(&["exec", &container(&alive), "touch", "/tmp/go"], &[]);
    let report = rig.plane.report(&alive).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_eq!(rig.plane.output(&alive), "up\nup\n");
    rig.finish().await;
}

#[tokio::test]
async fn what_a_container_uses_is_waited_for_and_holds_up_nobody_else() {
    let rig = rig(|_| {}).await;
    let begun = first("echo one > notes");
    said(&rig, &begun).await;
    eventually("its container to go", || async { (rig.homes() == 0).then_some(()) }).await;
    // Stands for the container of an attempt that has not ended yet.
    let mount = format!("ozma-workspace-{}:/w", begun.run_id);
    let line = "trap 'echo late >> /w/notes; exit' TERM; while :; do sleep 0.05; done";
    let run = ["run", "--rm", "--detach", "--label", image::LABEL, "-v", &mount];
    let earlier = docker(&[&run[..], &[image::busybox(), "sh", "-c", line]].concat(), &[]);

    let mut anew = begun.clone();
    anew.execution_id = command("").execution_id;
    let follow_up = next(&begun, "cat notes");
    for waiting in [&anew, &follow_up] {
        rig.plane.assign(waiting);
        let claimed = |spec: &RunSpec| rig.plane.seen().claimed.contains(&spec.execution_id);
        eventually("the claim", || async { claimed(waiting).then_some(()) }).await;
    }
    assert_eq!(said(&rig, &first("echo other")).await, "other\n");
    rig.plane.cancel(&anew);
    let report = rig.plane.report(&anew).await;
    let FromWorker::TaskCompleted(done) = &report else { panic!("{report:?}") };
    assert_eq!(done.task_state.as_deref(), Some("CANCELLED"));
    docker(&["kill", "--signal", "TERM", &earlier], &[]);
    let report = rig.plane.report(&follow_up).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_eq!(rig.plane.output(&follow_up), "one\nlate\n");
    forget(rig).await;
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_goes() {
    let rig = rig(|config| config.sessions.max_bytes = 30 * MIB).await;
    let write = "dd if=/dev/zero of=big bs=1M count=20 2>/dev/null; echo written";
    let (old, new) = (first(write), first(write));
    said(&rig, &old).await;
    eventually("its size to be known", || async {
        let beat = rig.plane.seen().heartbeat.clone()?;
        (rig.homes() == 0 && beat.disk?.used_bytes > 20 * MIB).then_some(())
    })
    .await;
    said(&rig, &new).await;
    eventually("the oldest to go", || async { volumes(&old).is_empty().then_some(()) }).await;
    assert_eq!(said(&rig, &next(&new, "ls")).await, "big\n");
    forget(rig).await;
}

#[tokio::test]
async fn one_that_is_in_use_keeps_no_younger_one_from_making_room() {
    let rig = rig(|config| config.disk_limit_bytes = 30 * MIB).await;
    let old = first("echo written");
    said(&rig, &old).await;
    eventually("its container to go", || async { (rig.homes() == 0).then_some(()) }).await;
    // Somebody looks into it.
    let mount = format!("ozma-workspace-{}:/w", old.run_id);
    let create = ["create", "--label", image::LABEL, "-v", &mount, image::busybox(), "true"];
    let holder = docker(&create, &[]);
    let young = first("dd if=/dev/zero of=big bs=1M count=40 2>/dev/null; echo written");
    said(&rig, &young).await;
    eventually("the younger to go", || async { volumes(&young).is_empty().then_some(()) }).await;
    eventually("room", || async { (rig.plane.seen().heartbeat.clone()?.free > 0).then_some(()) })
        .await;
    assert!(!volumes(&old).is_empty());
    docker(&["rm", &holder], &[]);
    forget(rig).await;
}

#[tokio::test]
async fn a_run_counts_as_use_however_short_it_is() {
    let mut rig = Rig::direct().await;
    rig.kill();
    rig.config.sweep_ms = 3_600_000;
    rig.start().await;
    let begun = first("true");
    let used = || {
        let text = std::fs::read(rig.config.state_dir.join("sessions.json")).ok()?;
        let used: serde_json::Value = serde_json::from_slice(&text).ok()?;
        used[begun.run_id.as_str()]["last"]["ms"].as_u64()
    };
    said(&rig, &begun).await;
    eventually("its end", || async { (rig.homes() == 0).then_some(()) }).await;
    let before = eventually("its use to be noted", || async { used() }).await;
    said(&rig, &next(&begun, "true")).await;
    eventually("a newer use", || async { used().filter(|ms| *ms > before) }).await;
    rig.finish().await;
}

#[tokio::test]
async fn one_that_cannot_be_removed_keeps_nothing_from_being_cleaned_up() {
    let mut rig = Rig::direct().await;
    rig.kill();
    let sessions = rig.config.state_dir.join(".sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    // No folder, so that not even root can remove it as one.
    std::fs::write(sessions.join("a"), "").unwrap();
    rig.config.sessions.keep_secs = 0;
    rig.config.sweep_ms = 100;
    rig.start().await;
    let begun = first("mkdir closed; touch closed/file; chmod 555 closed");
    said(&rig, &begun).await;
    let kept = sessions.join(begun.run_id.as_str());
    eventually("the other to go", || async { (!kept.exists()).then_some(()) }).await;
    assert!(sessions.join("a").exists());
    rig.finish().await;
}

#[tokio::test]
async fn a_workspace_that_is_kept_counts_and_makes_room() {
    let rig = rig(|config| {
        config.disk_limit_bytes = 60 * MIB;
        config.execution_disk_bytes = 45 * MIB;
    })
    .await;
    let write =
        |mib: u64| format!("dd if=/dev/zero of=big bs=1M count={mib} 2>/dev/null; echo written");
    // The bound of an execution holds for what it has in a volume.
    let big = first(&format!("{}; sleep 60", write(50)));
    let (reason, message) = failure(&rig, &big).await;
    assert_eq!(reason, FailureReason::AgentLimit, "{message}");
    let small = first(&write(20));
    eventually("a place", || async { (rig.homes() == 0).then_some(()) }).await;
    // Together they are more than the disk may hold: the older one goes, and work goes on.
    said(&rig, &small).await;
    eventually("the oldest to go", || async { volumes(&big).is_empty().then_some(()) }).await;
    eventually("room", || async {
        let beat = rig.plane.seen().heartbeat.clone()?;
        (beat.free > 0 && beat.disk?.used_bytes < 30 * MIB).then_some(())
    })
    .await;
    assert_eq!(said(&rig, &next(&small, "ls")).await, "big\n");
    forget(rig).await;
}

#[tokio::test]
async fn a_follow_up_whose_container_or_worker_is_killed_loses_no_workspace() {
    let mut rig = rig(|_| {}).await;
    let begun = first("echo 1 >> notes");
    said(&rig, &begun).await;
    let killed = next(&begun, "echo 2 >> notes; echo up; sleep 300");
    rig.plane.assign(&killed);
    rig.plane.output_line(&killed, "up").await;
    docker(&["kill", &container(&killed)], &[]);
    let report = rig.plane.report(&killed).await;
    assert!(matches!(report, FromWorker::TaskFailed(_)), "{report:?}");

    let survivor = next(
        &begun,
        "echo 3 >> notes; echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; cat notes",
    );
    rig.plane.assign(&survivor);
    rig.plane.output_line(&survivor, "up").await;
    rig.kill();
    rig.start().await;
    docker(&["exec", &container(&survivor), "touch", "/tmp/go"], &[]);
    let report = rig.plane.report(&survivor).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_eq!(rig.plane.output(&survivor), "up\n1\n2\n3\n");

    // Killed between its start and anything else, at some point of it.
    for delay_ms in [1, 60, 150] {
        let broken = next(&begun, "echo x >> notes");
        rig.plane.assign(&broken);
        let claimed = |spec: &RunSpec| rig.plane.seen().claimed.contains(&spec.execution_id);
        eventually("the claim", || async { claimed(&broken).then_some(()) }).await;
        // Not waited for anything: each time another point is met.
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        rig.kill();
        rig.start().await;
        rig.plane.report(&broken).await;
    }
    let left = said(&rig, &next(&begun, "grep -v x notes")).await;
    assert_eq!(left, "1\n2\n3\n");
    forget(rig).await;
}

#[tokio::test]
async fn plain_processes_keep_their_conversations_in_folders() {
    let mut rig = Rig::direct().await;
    let begun = first("echo one > notes; pwd; echo two > ../session/notes");
    let place = said(&rig, &begun).await;
    rig.kill();
    rig.start().await;
    let found = said(&rig, &next(&begun, "cat notes ../session/notes; pwd")).await;
    assert_eq!(found, format!("one\ntwo\n{place}"));
    let mut others = next(&begun, "cat notes");
    others.tenant_id = "another".parse().unwrap();
    assert_eq!(failure(&rig, &others).await.0, FailureReason::SessionGone);
    let alive = next(&begun, "echo up; while [ ! -e go ]; do sleep 0.05; done; cat notes");
    rig.plane.assign(&alive);
    rig.plane.output_line(&alive, "up").await;
    rig.kill();
    rig.config.sessions.keep_secs = 0;
    rig.config.sweep_ms = 100;
    rig.start().await;
    let other = first("true");
    said(&rig, &other).await;
    let kept = |spec: &RunSpec| rig.config.state_dir.join(".sessions").join(spec.run_id.as_str());
    eventually("the other's to go", || async { (!kept(&other).exists()).then_some(()) }).await;
    std::fs::write(kept(&begun).join("workspace/go"), "").unwrap();
    rig.plane.report(&alive).await;
    assert_eq!(rig.plane.output(&alive), "up\none\n");
    eventually("all of it to go", || async { (!kept(&begun).exists()).then_some(()) }).await;
    rig.finish().await;
}
