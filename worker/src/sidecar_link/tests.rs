//! A sidecar that keeps to the rules, and everything that does not.

use std::time::Duration;

use protocol::{
    event::{Event, EventLine},
    limits::MAX_SIDECAR_LINE_BYTES,
    link::FromWorker,
    secret::Secret,
    sidecar::{FromSidecar, SidecarHello, ToSidecar},
};
use service::clock::Clock;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::Notify,
};

use super::*;
use crate::{backend::Attached, home::Record};

struct Bench {
    link: SidecarLink,
    held: Arc<Held>,
    home: Home,
    _folder: TempDir,
}

impl Bench {
    async fn new(spec: Option<RunSpec>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::example();
        let home = Home::at(folder.path(), &record.execution_id);
        home.create(&record, 0o700).unwrap();
        let wake = Arc::new(Notify::new());
        let held = Held::new(record.run_id, record.execution_id, Clock::system(), wake, None);
        let held = Arc::new(held);
        let life = Lifecycle::new();
        if spec.is_some() {
            held.container_begins();
        }
        let link = SidecarLink::open(&life, held.clone(), home.clone(), spec, None).await.unwrap();
        Self { link, held, home, _folder: folder }
    }

    async fn dial(&self) -> BufReader<UnixStream> {
        let path = self.home.sock().join(socket::NAME);
        BufReader::new(UnixStream::connect(path).await.unwrap())
    }

    /// A connection that has said hello, and the answer.
    async fn hello(&self, key: Option<Secret>) -> (BufReader<UnixStream>, Option<ToSidecar>) {
        let mut stream = self.dial().await;
        let hello = SidecarHello { key, version: "test".to_owned(), last_seq: 0 };
        say(&mut stream, &FromSidecar::Hello(hello).to_json()).await;
        let answer = heard(&mut stream).await;
        (stream, answer)
    }
}

fn spec() -> RunSpec {
    serde_json::from_str(
        r#"{"run_id":"run","execution_id":"exe","tenant_id":"t","attempt":1,"title":"","prompt":"p","image":"i"}"#,
    )
    .unwrap()
}

fn event(seq: u64, event: &Event) -> String {
    FromSidecar::Event(EventLine::new(seq, 0, event)).to_json()
}

fn notice(seq: u64) -> String {
    event(seq, &Event::Notice { text: "n".to_owned() })
}

async fn say(stream: &mut BufReader<UnixStream>, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
}

/// The next line; `None` when the worker closed the connection.
async fn heard(stream: &mut BufReader<UnixStream>) -> Option<ToSidecar> {
    let mut line = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_line(&mut line));
    match read.await.expect("an answer or an end") {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(ToSidecar::parse(&line).unwrap()),
    }
}

async fn is_closed(mut stream: BufReader<UnixStream>) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    read.await.is_ok()
}

#[tokio::test]
async fn the_assignment_is_given_until_it_is_had_and_the_key_is_asked_for_then() {
    let bench = Bench::new(Some(spec())).await;
    let (_lost, answer) = bench.hello(None).await;
    assert!(matches!(answer, Some(ToSidecar::Assign(_))), "{answer:?}");
    let (mut first, answer) = bench.hello(None).await;
    let Some(ToSidecar::Assign(assign)) = answer else { panic!("{answer:?}") };
    say(&mut first, &notice(1)).await;
    while bench.held.outbox.sidecar_received() < 1 {
        tokio::task::yield_now().await;
    }

    assert!(bench.hello(None).await.1.is_none(), "an assignment was given twice");
    let wrong = Secret::new("0".repeat(64));
    assert!(bench.hello(Some(wrong)).await.1.is_none(), "a wrong key was taken");

    let (_second, answer) = bench.hello(Some(assign.key)).await;
    let Some(ToSidecar::Resume(from)) = answer else { panic!("{answer:?}") };
    assert_eq!(from.seq, 1);
    assert!(is_closed(first).await, "two connections at once");
}

#[tokio::test]
async fn the_container_phase_ends_before_the_sidecars_first_event() {
    let bench = Bench::new(Some(spec())).await;
    let (mut stream, _) = bench.hello(None).await;
    say(&mut stream, &notice(1)).await;
    while bench.held.outbox.sidecar_received() < 1 {
        tokio::task::yield_now().await;
    }
    let mut kinds = Vec::new();
    while let Some(message) = bench.held.outbox.next(tokio::time::Instant::now()) {
        let FromWorker::Events(batch) = message else { panic!("{message:?}") };
        kinds.extend(batch.events.into_iter().map(|line| line.kind));
    }
    assert_eq!(kinds, ["phase_started", "phase_finished", "notice"]);
    // Said once, whoever else notices the end.
    bench.held.container_ended(false);
    assert!(bench.held.outbox.next(tokio::time::Instant::now()).is_none());
}

#[tokio::test]
async fn without_an_assignment_a_new_sidecar_is_stranded() {
    let bench = Bench::new(None).await;
    assert!(bench.hello(None).await.1.is_none());
    assert!(bench.link.contact().borrow().stranded);
    let (_stream, answer) = bench.hello(Some(bench.home.key().unwrap())).await;
    assert!(matches!(answer, Some(ToSidecar::Resume(_))), "{answer:?}");
}

#[tokio::test]
async fn whatever_breaks_the_rules_ends_its_connection_and_changes_nothing() {
    let state = event(
        1,
        &Event::State {
            state: protocol::run::RunState::Succeeded,
            attempt: 1,
            reason: None,
            message: None,
            worker_id: None,
            cancelling: false,
        },
    );
    let exit =
        r#"{"type":"event","data":{"seq":1,"at_ms":0,"kind":"exit","data":{"success":"yes"}}}"#;
    for hostile in [
        "not json".to_owned(),
        "{}".to_owned(),
        "\u{0}\u{1}\u{2}".to_owned(),
        r#"{"type":"event","data":{"seq":-1}}"#.to_owned(),
        "x".repeat(MAX_SIDECAR_LINE_BYTES + 1),
        notice(2),
        FromSidecar::parse(r#"{"type":"hello","data":{"version":"","last_seq":0}}"#)
            .unwrap()
            .to_json(),
        state,
        exit.to_owned(),
    ] {
        let bench = Bench::new(Some(spec())).await;
        let (mut stream, _) = bench.hello(None).await;
        // The connection may end while a long line is still being written.
        let _ = stream.write_all(format!("{hostile}\n").as_bytes()).await;
        let shown: String = hostile.chars().take(60).collect();
        assert!(is_closed(stream).await, "{shown} was taken");
        assert_eq!(bench.held.outbox.sidecar_received(), 0);
        assert!(bench.link.exit().borrow().is_none());
    }
}

#[tokio::test]
async fn nothing_but_a_hello_comes_first() {
    let bench = Bench::new(Some(spec())).await;
    let mut stream = bench.dial().await;
    say(&mut stream, &notice(1)).await;
    assert!(is_closed(stream).await);
    assert!(!bench.link.contact().borrow().ever);
}

#[tokio::test]
async fn an_order_to_stop_is_repeated_to_every_connection() {
    let bench = Bench::new(Some(spec())).await;
    bench.link.cancel(StopCause::Cancelled, 5);
    bench.link.cancel(StopCause::Shutdown, 5);
    for key in [None, Some(bench.home.key().unwrap())] {
        let (mut stream, _) = bench.hello(key).await;
        let Some(ToSidecar::Cancel(cancel)) = heard(&mut stream).await else { panic!("no order") };
        assert_eq!(cancel.cause, StopCause::Cancelled);
    }
}

/// The container's ends of an attachment, and what became of the worker's.
fn attached(
    bench: &Bench,
    first: bool,
) -> (BufReader<tokio::io::DuplexStream>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (output, input) = tokio::io::split(theirs);
    let attached = Attached { output: Box::new(BufReader::new(output)), input: Box::pin(input) };
    let shared = bench.link.shared.clone();
    let served = Lifecycle::new()
        .spawn(async move { connection::serve_attached(attached, first, &shared).await });
    (BufReader::new(ours), served)
}

async fn next_word(stream: &mut BufReader<tokio::io::DuplexStream>) -> ToSidecar {
    let mut line = String::new();
    while line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    ToSidecar::parse(&line).unwrap()
}

fn hello_line(key: Option<Secret>) -> String {
    let hello = SidecarHello { key, version: "test".to_owned(), last_seq: 0 };
    FromSidecar::Hello(hello).to_json()
}

#[tokio::test(start_paused = true)]
async fn whoever_attaches_again_passes_over_everything_before_the_hello() {
    let bench = Bench::new(Some(spec())).await;
    let (mut stream, served) = attached(&bench, true);
    let said = [hello_line(None), notice(1), notice(2)].join("\n") + "\n";
    stream.write_all(said.as_bytes()).await.unwrap();
    assert!(matches!(next_word(&mut stream).await, ToSidecar::Assign(_)));
    while bench.held.outbox.sidecar_received() < 2 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    served.await.unwrap().unwrap();

    let (mut stream, served) = attached(&bench, false);
    let ToSidecar::Resume(from) = next_word(&mut stream).await else { panic!("no resume") };
    assert_eq!(from.seq, 2);
    let key = bench.home.key().unwrap();
    // Half a line, events that an earlier worker was to have, and its own hello before ours.
    let half = notice(4).split_off(20);
    let hello = hello_line(Some(key));
    let said = [&half, "\u{fffd}", &notice(5), &hello, &notice(1), &hello, &notice(3)].join("\n");
    stream.write_all(format!("{said}\n").as_bytes()).await.unwrap();
    while bench.held.outbox.sidecar_received() < 3 {
        tokio::task::yield_now().await;
    }
    // Silent from here on, which may be the engine's fault: it is attached to anew.
    let error = served.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("nothing heard"), "{error:#}");
    assert!(!bench.link.contact().borrow().now);
}

#[tokio::test]
async fn a_sidecar_attached_to_without_an_assignment_is_stranded() {
    let bench = Bench::new(None).await;
    let (mut stream, served) = attached(&bench, false);
    assert!(matches!(next_word(&mut stream).await, ToSidecar::Resume(_)));
    stream.write_all(format!("{}\n", hello_line(None)).as_bytes()).await.unwrap();
    served.await.unwrap().unwrap_err();
    assert!(bench.link.contact().borrow().stranded);
}
