//! Dialling again, with the key, without loss or doubling; stdio; the journal as what is left.

use std::process::Stdio;

use protocol::{
    event::EventLine,
    failure::FailureReason,
    secret::Secret,
    sidecar::{Seq, ToSidecar},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::worker::{Heard, KEY, Worker, command};

#[tokio::test]
async fn a_broken_link_is_dialled_again_and_nothing_is_lost_or_doubled() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("seq 1 20000")).await;
    let mut heard = Heard::default();
    // Broken off ten times: each time with a few more heard, and fewer acknowledged.
    for round in 1..=10 {
        for _ in 0..round * 20 {
            heard.0.push(connection.event().await.unwrap());
        }
        connection.send(ToSidecar::Ack(Seq { seq: heard.0.len() as u64 / 2 })).await;
        drop(connection);
        let (next, hello) = worker.accept().await;
        connection = next;
        assert_eq!(hello.key, Some(Secret::new(KEY)));
        assert!(hello.last_seq >= heard.0.len() as u64);
        connection.send(ToSidecar::Resume(Seq { seq: heard.0.len() as u64 })).await;
    }
    let rest = worker.finish(connection).await;
    heard.0.extend(rest.0);
    assert!(heard.0.iter().zip(1..).all(|(line, seq)| line.seq == seq));
    assert_eq!(heard.stdout(), (1..=20_000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_worker_that_forgot_is_told_from_the_last_acknowledgement_on() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("seq 1 100; read line; echo $line")).await;
    for _ in 0..50 {
        connection.event().await.unwrap();
    }
    connection.send(ToSidecar::Ack(Seq { seq: 40 })).await;
    drop(connection);
    let (mut connection, _) = worker.accept().await;
    connection.send(ToSidecar::Resume(Seq { seq: 0 })).await;
    let first = connection.event().await.unwrap().seq;
    // The acknowledgement may have been lost with the link, but never more than it said is forgotten.
    assert!(first == 1 || first == 41, "{first}");
    worker.finish(connection).await;
}

#[tokio::test]
async fn the_journal_holds_what_was_not_acknowledged() {
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("seq 1 100")).await;
    let last = connection.until(|event| matches!(event, protocol::event::Event::Exit(_))).await;
    let journal = worker.root().join("ozma/journal.jsonl");
    let about = std::fs::metadata(&journal).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o600);
    let lines = std::fs::read_to_string(&journal).unwrap();
    let seqs: Vec<_> =
        lines.lines().map(|line| serde_json::from_str::<EventLine>(line).unwrap().seq).collect();
    assert_eq!(seqs, (1..=last.seq).collect::<Vec<_>>());
    connection.send(ToSidecar::Ack(Seq { seq: last.seq })).await;
    assert_eq!(worker.ended().await, Some(0));
}

#[tokio::test]
async fn without_a_socket_the_same_lines_go_over_stdin_and_stdout() {
    let worker = Worker::listen();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ozma-sidecar"))
        .args(["supervise", "--stdio", "--unisolated", "--root"])
        .arg(worker.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("\"hello\""));
    let assign = protocol::sidecar::Assign {
        key: Secret::new(KEY),
        spec: command("echo hi; sleep 0.2; echo on"),
    };
    let line = ToSidecar::Assign(Box::new(assign)).to_json();
    stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut seq = 0;
    let mut again = true;
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("\"type\":\"hello\"") {
            // From the first event on, once more: a worker that comes late has heard none of them.
            assert!(line.contains(KEY), "{line}");
            seq = 0;
            continue;
        }
        seq += 1;
        let event = format!("\"seq\":{seq},");
        assert!(line.contains(&event), "{event} is not next: {line}");
        if seq == 3 && std::mem::take(&mut again) {
            // What an earlier worker wrote half of is no line of the next one's.
            let resume = ToSidecar::Resume(Seq { seq: 0 }).to_json();
            stdin.write_all(format!("{{\"type\":\n{resume}\n").as_bytes()).await.unwrap();
        }
        if line.contains("\"kind\":\"exit\"") {
            let ack = ToSidecar::Ack(Seq { seq }).to_json();
            stdin.write_all(format!("{ack}\n").as_bytes()).await.unwrap();
        }
    }
    assert!(child.wait().await.unwrap().success());
    assert!(!again);
}

#[tokio::test]
async fn an_image_without_a_place_for_the_sidecar_is_told() {
    for taken in ["workspace", "ozma"] {
        let mut worker = Worker::listen();
        std::fs::create_dir(worker.root()).unwrap();
        std::os::unix::fs::symlink("/etc", worker.root().join(taken)).unwrap();
        worker.launch(&[]);
        let exit = worker.run(command("true")).await.exit().unwrap();
        // The user's to mend, and not tried again.
        assert_eq!(exit.reason, Some(FailureReason::AgentInvocation));
        assert!(exit.message.contains(taken) && exit.message.contains("link"), "{}", exit.message);
    }
}
