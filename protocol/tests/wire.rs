//! Every message once, as it stands on the wire. A changed line here is a changed contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use expect_test::expect_file;
use protocol::{
    event::{Artifact, Event, EventLine, EventSource, Exit, Phase, Stream},
    failure::FailureReason,
    ids::WorkerId,
    link::{
        Ack, DiskUse, Drain, EventCount, Events, FromWorker, Heartbeat, Hello, ReportAck,
        RunningExecution, StockTask, TaskAssignment, TaskCancellation, TaskClaimed, TaskCompleted,
        TaskDefinition, TaskFailed, TaskRejected, ToWorker, Verdict, Welcome,
    },
    run::RunState,
    secret::Secret,
    sidecar::{
        Assign, Cancel, FromHarness, FromSidecar, Message, Seq, SidecarHello, StopCause, ToSidecar,
    },
    spec::{Endpoint, HarnessSpec, HttpEndpoint, ProviderKind, Repo, RunSpec},
};

const RUN: &str = "0198c5f0-0000-7000-8000-000000000001";
const EXECUTION: &str = "0198c5f0-0000-7000-8000-000000000002";

fn spec() -> RunSpec {
    RunSpec {
        run_id: RUN.parse().unwrap(),
        execution_id: EXECUTION.parse().unwrap(),
        tenant_id: "ab12".parse().unwrap(),
        attempt: 1,
        title: "Fix it".to_owned(),
        prompt: "fix \"it\"".to_owned(),
        image: "debian:bookworm-slim".to_owned(),
        repos: vec![Repo { reference: Some("main".to_owned()), ..Repo::new("acme/shop") }],
        setup_commands: vec!["make".to_owned()],
        env: [("TOKEN".to_owned(), Secret::new("s3cret"))].into(),
        harness: HarnessSpec {
            provider: ProviderKind::Agent,
            endpoint: Some(Endpoint::OpenaiChat(HttpEndpoint {
                base_url: "http://127.0.0.1:9/v1".to_owned(),
                api_key: Some(Secret::new("key")),
                model: "m".to_owned(),
                ..HttpEndpoint::default()
            })),
            ..HarnessSpec::default()
        },
        shape: protocol::spec::Shape::default(),
        network: protocol::spec::Network::Open,
        timeouts: protocol::spec::Timeouts::default(),
        artifacts: vec!["dist/**".to_owned()],
        session: None,
    }
}

fn line(event: &Event) -> EventLine {
    EventLine::new(1, 1_700_000_000_000, event)
}

fn from_worker() -> Vec<FromWorker> {
    let execution_id = || Some(EXECUTION.parse().unwrap());
    let task_id = || RUN.parse().unwrap();
    vec![
        FromWorker::Hello(Hello {
            protocol: 1,
            instance_id: "i1".to_owned(),
            version: "0.1.0".to_owned(),
            tags: vec!["gpu".to_owned()],
            backend: "docker".to_owned(),
            capacity: 2,
            draining: false,
            disk: None,
            executions: vec![RunningExecution {
                run_id: task_id(),
                execution_id: EXECUTION.parse().unwrap(),
            }],
        }),
        FromWorker::TaskClaimed(TaskClaimed {
            task_id: task_id(),
            worker_id: WorkerId::try_from("w 1".to_owned()).unwrap(),
            execution_id: execution_id(),
        }),
        FromWorker::TaskRejected(TaskRejected {
            task_id: task_id(),
            execution_id: None,
            reason: "worker at maximum concurrency".to_owned(),
        }),
        FromWorker::TaskCompleted(TaskCompleted {
            task_id: task_id(),
            execution_id: execution_id(),
            message: "done".to_owned(),
            task_state: Some("CANCELLED".to_owned()),
            exit_code: Some(0),
            peak_memory_bytes: Some(1024),
            after: Some(EventCount { worker: 4, sidecar: 30 }),
        }),
        FromWorker::TaskFailed(TaskFailed {
            task_id: task_id(),
            execution_id: execution_id(),
            message: "out of memory".to_owned(),
            failure_reason: Some(FailureReason::ContainerOom),
            exit_code: Some(137),
            oom_killed: true,
            peak_memory_bytes: Some(1 << 26),
            after: None,
        }),
        FromWorker::Events(Events {
            execution_id: EXECUTION.parse().unwrap(),
            source: EventSource::Sidecar,
            events: vec![line(&Event::PhaseStarted { phase: Phase::Clone })],
        }),
        FromWorker::Heartbeat(Heartbeat {
            executions: vec![EXECUTION.parse().unwrap()],
            free: 1,
            draining: true,
            disk: Some(DiskUse { used_bytes: 1 << 30, limit_bytes: None }),
        }),
    ]
}

fn to_worker() -> Vec<ToWorker> {
    let execution_id = || EXECUTION.parse().unwrap();
    vec![
        ToWorker::Welcome(Welcome {
            protocol: 1,
            lease_ms: 12_000,
            heartbeat_ms: 4_000,
            executions: vec![Verdict {
                execution_id: execution_id(),
                keep: true,
                worker_seq: 2,
                sidecar_seq: 40,
            }],
        }),
        ToWorker::TaskAssignment(Box::new(TaskAssignment {
            task_id: RUN.parse().unwrap(),
            execution_id: execution_id(),
            task: StockTask {
                id: RUN.parse().unwrap(),
                title: "Fix it".to_owned(),
                task_definition: TaskDefinition { prompt: "fix \"it\"".to_owned() },
            },
            docker_image: String::new(),
            sidecar_image: String::new(),
            env_vars: [].into(),
            spec: Some(spec()),
        })),
        ToWorker::TaskCancellation(TaskCancellation {
            task_id: RUN.parse().unwrap(),
            execution_id: Some(execution_id()),
        }),
        ToWorker::Ack(Ack { execution_id: execution_id(), source: EventSource::Worker, seq: 3 }),
        ToWorker::ReportAck(ReportAck { execution_id: execution_id() }),
        ToWorker::Stop(ReportAck { execution_id: execution_id() }),
        ToWorker::Drain(Drain {}),
        ToWorker::Resume(Drain {}),
    ]
}

fn to_sidecar() -> Vec<ToSidecar> {
    vec![
        ToSidecar::Assign(Box::new(Assign { key: Secret::new("k"), spec: spec() })),
        ToSidecar::Resume(Seq { seq: 4 }),
        ToSidecar::Ack(Seq { seq: 5 }),
        ToSidecar::Cancel(Cancel { cause: StopCause::Cancelled, grace_ms: 10_000 }),
        ToSidecar::Message(Message { text: "and tests".to_owned() }),
    ]
}

fn events() -> Vec<Event> {
    let uid = || "a1".parse().unwrap();
    vec![
        Event::State {
            state: RunState::Queued,
            attempt: 1,
            reason: Some(FailureReason::WorkerLost),
            message: Some("silent for 12 s".to_owned()),
            worker_id: Some("w1".to_owned()),
            cancelling: false,
        },
        Event::PhaseStarted { phase: Phase::Setup },
        Event::PhaseFinished { phase: Phase::Setup, duration_ms: 12, ok: true },
        Event::ImageProgress {
            image: "debian".to_owned(),
            status: "Downloading".to_owned(),
            current_bytes: Some(1),
            total_bytes: Some(2),
        },
        Event::Cloned {
            url: "/srv/demo.git".to_owned(),
            path: "/workspace/demo".to_owned(),
            commit: "c0ffee".to_owned(),
            by: "git".to_owned(),
        },
        Event::SetupStarted { index: 0, command: "make".to_owned() },
        Event::SetupFinished { index: 0, exit_code: 2, duration_ms: 3 },
        Event::Output {
            phase: Phase::Provider,
            stream: Stream::Stderr,
            text: Some("oops".to_owned()),
            base64: None,
            partial: true,
        },
        Event::Model { dialect: "scripted".to_owned(), model: "demo".to_owned(), scripted: true },
        Event::Text { text: "hm".to_owned(), scripted: false },
        Event::ToolCall {
            id: "t1".to_owned(),
            name: "shell".to_owned(),
            input: serde_json::json!({"command": "ls"}),
            scripted: true,
        },
        Event::ToolResult {
            id: "t1".to_owned(),
            name: "shell".to_owned(),
            ok: true,
            output: "README".to_owned(),
            duration_ms: 4,
            truncated: false,
            scripted: true,
        },
        Event::Session { provider: "claude".to_owned(), session_id: "s1".to_owned() },
        Event::ModelRetry {
            attempt: 1,
            wait_ms: Some(500),
            message: "rate_limit (429)".to_owned(),
        },
        Event::Raw { line: r#"{"type":"new"}"#.to_owned(), truncated: false },
        Event::Usage {
            input_tokens: 1,
            output_tokens: 2,
            cached_input_tokens: 0,
            turns: 1,
            cost_usd: Some(0.25),
            scripted: false,
        },
        Event::Answer { text: "done".to_owned(), scripted: false },
        Event::Notice { text: "left out big.bin".to_owned() },
        Event::Truncated { what: "output".to_owned(), limit: 5 },
        Event::ArtifactPart { artifact_uid: uid(), index: 0, base64: "aGk=".to_owned() },
        Event::Artifact(Artifact {
            artifact_uid: uid(),
            artifact_type: "FILE".to_owned(),
            filename: Some("changes.patch".to_owned()),
            filepath: Some("changes.patch".to_owned()),
            mime_type: Some("text/x-patch".to_owned()),
            description: None,
            size_bytes: Some(2),
            sha256: Some("00".to_owned()),
            url: None,
            branch: None,
        }),
        Event::Exit(Exit {
            success: false,
            exit_code: Some(3),
            reason: Some(FailureReason::AgentExit),
            message: "the command ended with 3".to_owned(),
            peak_memory_bytes: None,
            oom_killed: false,
            retry_after_ms: None,
        }),
    ]
}

fn check<T>(name: &str, messages: &[T], write: impl Fn(&T) -> String, read: impl Fn(&str) -> T) {
    let mut wire = String::new();
    for message in messages {
        let text = write(message);
        assert_eq!(write(&read(&text)), text, "a message does not survive its own reading");
        wire.push_str(&text);
        wire.push('\n');
    }
    expect_file![format!("{}/tests/wire/{name}.jsonl", env!("CARGO_MANIFEST_DIR"))]
        .assert_eq(&wire);
}

#[test]
fn frames_between_plane_and_worker() {
    check("from_worker", &from_worker(), FromWorker::to_json, |t| FromWorker::parse(t).unwrap());
    check("to_worker", &to_worker(), ToWorker::to_json, |t| ToWorker::parse(t).unwrap());
}

#[test]
fn lines_between_worker_and_sidecar() {
    check("to_sidecar", &to_sidecar(), ToSidecar::to_json, |t| ToSidecar::parse(t).unwrap());
    let from = [
        FromSidecar::Hello(SidecarHello {
            key: Some(Secret::new("k")),
            version: "0.1.0".to_owned(),
            last_seq: 9,
        }),
        FromSidecar::Event(line(&Event::Notice { text: "hi".to_owned() })),
    ];
    check("from_sidecar", &from, FromSidecar::to_json, |t| FromSidecar::parse(t).unwrap());
}

#[test]
fn events_and_what_the_harness_says() {
    check(
        "events",
        &events(),
        |event| serde_json::to_string(&line(event)).unwrap(),
        |text| serde_json::from_str::<EventLine>(text).unwrap().event().unwrap(),
    );
    for event in events() {
        let said = FromHarness::Event(event).to_json();
        assert_eq!(FromHarness::parse(&said).unwrap().to_json(), said);
    }
}

#[test]
fn the_stock_worker_is_understood() {
    for (text, kind) in [
        (r#"{"type":"task_claimed","data":{"task_id":"r1","worker_id":"w"}}"#, "task_claimed"),
        (
            r#"{"data":{"task_id":"r1","message":"Task cancelled by user request.","task_state":"CANCELLED"},"type":"task_completed"}"#,
            "task_completed",
        ),
        (
            r#"{"type":"task_failed","data":{"task_id":"r1","message":"\u003cno\u003e","failure_reason":"from_the_future","exit_code":137}}"#,
            "task_failed",
        ),
        (r#"{"type":"heartbeat_of_another_age","data":{}}"#, "heartbeat_of_another_age"),
        (r#"{"type":"something_without_data"}"#, "something_without_data"),
    ] {
        assert_eq!(FromWorker::parse(text).unwrap().kind(), kind);
    }
    for text in
        ["", "[]", "null", r#"{"data":{}}"#, r#"{"type":"task_failed","data":{"task_id":4}}"#]
    {
        assert!(FromWorker::parse(text).is_err(), "{text:?} was understood");
    }
}
