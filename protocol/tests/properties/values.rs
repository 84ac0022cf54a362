//! Arbitrary values of everything that travels.

use std::collections::BTreeMap;

use proptest::{collection::vec, option::of, prelude::*, sample::select};
use protocol::{
    event::{Artifact, Event, EventLine, EventSource, Exit, Phase, Stream},
    failure::FailureReason,
    ids::{ArtifactUid, ExecutionId, RunId, TenantId, WorkerId},
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
    spec::{
        AgentBounds, Auth, Endpoint, HarnessSpec, HttpEndpoint, McpServer, Network, ProviderKind,
        Repo, RunSpec, SessionSpec, Shape, Timeouts,
    },
};
use serde_json::Value;

/// A struct or variant, each field from a strategy. Boxed: strategies of strategies outgrow a test's stack.
macro_rules! build {
    ($($what:ident)::+ { $($field:ident: $strategy:expr),* $(,)? }) => {
        ($($strategy,)*).prop_map(|($($field,)*)| $($what)::+ { $($field),* }).boxed()
    };
}

/// Any text: quotes, line breaks, NUL, other planes.
pub(crate) fn text() -> BoxedStrategy<String> {
    prop_oneof![8 => "[ -~]{0,12}", 2 => any::<String>(), 1 => Just("\0\u{7f}\u{2028}".to_owned())]
        .boxed()
}

fn flag() -> impl Strategy<Value = bool> {
    any::<bool>()
}

fn code() -> impl Strategy<Value = i32> {
    any::<i32>()
}

fn count() -> impl Strategy<Value = u32> {
    any::<u32>()
}

fn large() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)]
}

fn event_count() -> impl Strategy<Value = EventCount> {
    build!(EventCount { worker: large(), sidecar: large() })
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn run_id() -> impl Strategy<Value = RunId> {
    "[A-Za-z0-9_-]{1,128}".prop_map(|id| id.parse().unwrap())
}

fn execution_id() -> impl Strategy<Value = ExecutionId> {
    "[A-Za-z0-9_-]{1,40}".prop_map(|id| id.parse().unwrap())
}

fn artifact_uid() -> impl Strategy<Value = ArtifactUid> {
    "[A-Za-z0-9_-]{1,40}".prop_map(|id| id.parse().unwrap())
}

fn tenant_id() -> impl Strategy<Value = TenantId> {
    "[0-9a-f]{64}".prop_map(|id| id.parse().unwrap())
}

fn worker_id() -> impl Strategy<Value = WorkerId> {
    "\\PC{1,30}".prop_map(|id| id.parse().unwrap())
}

fn secret() -> impl Strategy<Value = Secret> {
    text().prop_map(Secret::new)
}

fn reason() -> impl Strategy<Value = FailureReason> {
    select(FailureReason::ALL)
}

/// Any JSON but floating-point numbers, whose last digit a reader may change.
pub(crate) fn json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        flag().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        large().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
    .boxed()
}

fn source() -> impl Strategy<Value = EventSource> {
    select(vec![EventSource::Worker, EventSource::Sidecar])
}

fn phase() -> impl Strategy<Value = Phase> {
    select(&Phase::ALL[..])
}

fn artifact() -> impl Strategy<Value = Artifact> {
    build!(Artifact {
        artifact_uid: artifact_uid(),
        artifact_type: text(),
        filename: of(text()),
        filepath: of(text()),
        mime_type: of(text()),
        description: of(text()),
        size_bytes: of(large()),
        sha256: of(text()),
        url: of(text()),
        branch: of(text()),
    })
}

fn exit() -> impl Strategy<Value = Exit> {
    build!(Exit {
        success: flag(),
        exit_code: of(code()),
        reason: of(reason()),
        message: text(),
        peak_memory_bytes: of(large()),
        oom_killed: flag(),
        retry_after_ms: of(large()),
    })
}

pub(crate) fn event() -> BoxedStrategy<Event> {
    let of_the_plane = build!(Event::State {
        state: select(&RunState::ALL[..]),
        attempt: count(),
        reason: of(reason()),
        message: of(text()),
        worker_id: of(text()),
        cancelling: flag(),
    });
    let of_the_setup = prop_oneof![
        build!(Event::PhaseStarted { phase: phase() }),
        build!(Event::PhaseFinished { phase: phase(), duration_ms: large(), ok: flag() }),
        build!(Event::ImageProgress {
            image: text(),
            status: text(),
            current_bytes: of(large()),
            total_bytes: of(large()),
        }),
        build!(Event::Cloned { url: text(), path: text(), commit: text(), by: text() }),
        build!(Event::SetupStarted { index: count(), command: text() }),
        build!(Event::SetupFinished { index: count(), exit_code: code(), duration_ms: large() }),
        build!(Event::Output {
            phase: phase(),
            stream: select(vec![Stream::Stdout, Stream::Stderr]),
            text: of(text()),
            base64: of(text()),
            partial: flag(),
        }),
    ];
    let of_the_agent = prop_oneof![
        build!(Event::Model { dialect: text(), model: text(), scripted: flag() }),
        build!(Event::Text { text: text(), scripted: flag() }),
        build!(Event::ToolCall { id: text(), name: text(), input: json(), scripted: flag() }),
        build!(Event::ToolResult {
            id: text(),
            name: text(),
            ok: flag(),
            output: text(),
            duration_ms: large(),
            truncated: flag(),
            scripted: flag(),
        }),
        build!(Event::Usage {
            input_tokens: large(),
            output_tokens: large(),
            cached_input_tokens: large(),
            turns: count(),
            // A sum of money reads back as it was; not any number there is does.
            cost_usd: of((0..1_000_000_u32).prop_map(|cents| f64::from(cents) / 100.0)),
            scripted: flag(),
        }),
        build!(Event::Session { provider: text(), session_id: text() }),
        build!(Event::ModelRetry { attempt: count(), wait_ms: of(large()), message: text() }),
        build!(Event::Raw { line: text(), truncated: flag() }),
        build!(Event::Answer { text: text(), scripted: flag() }),
    ];
    let of_the_end = prop_oneof![
        build!(Event::Notice { text: text() }),
        build!(Event::Truncated { what: text(), limit: large() }),
        build!(Event::ArtifactPart {
            artifact_uid: artifact_uid(),
            index: count(),
            base64: text(),
        }),
        artifact().prop_map(Event::Artifact),
        exit().prop_map(Event::Exit),
    ];
    prop_oneof![of_the_plane, of_the_setup, of_the_agent, of_the_end].boxed()
}

fn event_line() -> BoxedStrategy<EventLine> {
    let at = any::<i64>;
    let known =
        (large(), at(), event()).prop_map(|(seq, at_ms, event)| EventLine::new(seq, at_ms, &event));
    let raw = json().prop_map(|value| serde_json::value::to_raw_value(&value).unwrap());
    let other = build!(EventLine { seq: large(), at_ms: at(), kind: text(), data: raw });
    prop_oneof![3 => known, 1 => other].boxed()
}

fn secrets() -> impl Strategy<Value = BTreeMap<String, Secret>> {
    vec((text(), secret()), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn names() -> impl Strategy<Value = BTreeMap<String, String>> {
    vec((text(), text()), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn endpoint() -> BoxedStrategy<Endpoint> {
    let http = build!(HttpEndpoint {
        base_url: text(),
        api_key: of(secret()),
        auth: select(vec![Auth::ApiKey, Auth::Bearer, Auth::Oauth]),
        headers: secrets(),
        model: text(),
    });
    let dialects: Vec<fn(HttpEndpoint) -> Endpoint> = vec![
        Endpoint::OpenaiChat,
        Endpoint::OpenaiResponses,
        Endpoint::Anthropic,
        Endpoint::Gemini,
    ];
    let spoken = (select(dialects), http).prop_map(|(dialect, http)| dialect(http));
    prop_oneof![4 => spoken, 1 => build!(Endpoint::Scripted { script: text() })].boxed()
}

fn mcp_server() -> BoxedStrategy<McpServer> {
    prop_oneof![
        build!(McpServer::Stdio { command: text(), args: texts(), env: secrets() }),
        build!(McpServer::Http { url: text(), headers: secrets() }),
    ]
    .boxed()
}

fn harness() -> BoxedStrategy<HarnessSpec> {
    use ProviderKind::{Agent, Claude, Codex, Command, Gemini, Opencode};
    let servers = vec((text(), mcp_server()), 0..3);
    build!(HarnessSpec {
        provider: select(vec![Agent, Command, Claude, Codex, Opencode, Gemini]),
        command: of(text()),
        model: of(text()),
        base_prompt: of(text()),
        bounds: build!(AgentBounds { max_turns: count(), max_tokens: large() }),
        endpoint: of(endpoint()),
        model_map: names(),
        mcp_servers: servers.prop_map(|pairs| pairs.into_iter().collect()),
        resume: of(text()),
        idle_secs: of(large()),
    })
}

fn spec() -> BoxedStrategy<RunSpec> {
    let repo = build!(Repo {
        url: text(),
        reference: of(text()),
        depth: of(count()),
        token_env: of(text()),
        submodules: flag(),
    });
    let shape =
        build!(Shape { cpu_millis: of(count()), memory_bytes: of(large()), pids: of(count()) });
    let timeouts = build!(Timeouts {
        queue_secs: of(large()),
        image_secs: large(),
        setup_secs: large(),
        run_secs: large(),
    });
    let ids = (run_id(), execution_id(), tenant_id(), count());
    let lists = (vec(repo, 0..3), texts(), vec((text(), secret()), 0..3), texts());
    let session = build!(SessionSpec { conversation_id: run_id(), resume: flag() });
    let bounds = (shape, select(vec![Network::Open, Network::None]), timeouts, of(session));
    (ids, (text(), text(), text()), lists, harness(), bounds)
        .prop_map(|(ids, (title, prompt, image), lists, harness, bounds)| {
            let (run_id, execution_id, tenant_id, attempt) = ids;
            let (repos, setup_commands, env, artifacts) = lists;
            let (shape, network, timeouts, session) = bounds;
            let env = env.into_iter().collect();
            RunSpec {
                run_id,
                execution_id,
                tenant_id,
                attempt,
                title,
                prompt,
                image,
                repos,
                setup_commands,
                env,
                harness,
                shape,
                network,
                timeouts,
                artifacts,
                session,
            }
        })
        .boxed()
}

fn disk() -> impl Strategy<Value = Option<DiskUse>> {
    of(build!(DiskUse { used_bytes: large(), limit_bytes: of(large()) }))
}

pub(crate) fn from_worker() -> impl Strategy<Value = FromWorker> {
    let running = build!(RunningExecution { run_id: run_id(), execution_id: execution_id() });
    let hello = build!(Hello {
        protocol: count(),
        instance_id: text(),
        version: text(),
        tags: texts(),
        backend: text(),
        capacity: count(),
        draining: flag(),
        disk: disk(),
        executions: vec(running, 0..3),
    });
    let claimed = build!(TaskClaimed {
        task_id: run_id(),
        worker_id: worker_id(),
        execution_id: of(execution_id()),
    });
    let rejected = build!(TaskRejected {
        task_id: run_id(),
        execution_id: of(execution_id()),
        reason: text(),
    });
    let completed = build!(TaskCompleted {
        task_id: run_id(),
        execution_id: of(execution_id()),
        message: text(),
        task_state: of(text()),
        exit_code: of(code()),
        peak_memory_bytes: of(large()),
        after: of(event_count()),
    });
    let failed = build!(TaskFailed {
        task_id: run_id(),
        execution_id: of(execution_id()),
        message: text(),
        failure_reason: of(reason()),
        exit_code: of(code()),
        oom_killed: flag(),
        peak_memory_bytes: of(large()),
        after: of(event_count()),
    });
    let events = build!(Events {
        execution_id: execution_id(),
        source: source(),
        events: vec(event_line(), 0..4),
    });
    let heartbeat = build!(Heartbeat {
        executions: vec(execution_id(), 0..4),
        free: count(),
        draining: flag(),
        disk: disk(),
    });
    prop_oneof![
        hello.prop_map(FromWorker::Hello),
        claimed.prop_map(FromWorker::TaskClaimed),
        rejected.prop_map(FromWorker::TaskRejected),
        completed.prop_map(FromWorker::TaskCompleted),
        failed.prop_map(FromWorker::TaskFailed),
        events.prop_map(FromWorker::Events),
        heartbeat.prop_map(FromWorker::Heartbeat),
    ]
}

pub(crate) fn to_worker() -> impl Strategy<Value = ToWorker> {
    let verdict = build!(Verdict {
        execution_id: execution_id(),
        keep: flag(),
        worker_seq: large(),
        sidecar_seq: large(),
    });
    let welcome = build!(Welcome {
        protocol: count(),
        lease_ms: large(),
        heartbeat_ms: large(),
        executions: vec(verdict, 0..3),
    });
    let task = build!(StockTask {
        id: run_id(),
        title: text(),
        task_definition: build!(TaskDefinition { prompt: text() }),
    });
    let env_vars = vec((text(), secret()), 0..3);
    let assignment = build!(TaskAssignment {
        task_id: run_id(),
        execution_id: execution_id(),
        task: task,
        docker_image: text(),
        sidecar_image: text(),
        env_vars: env_vars.prop_map(|pairs| pairs.into_iter().collect()),
        spec: of(spec()),
    });
    let cancellation =
        build!(TaskCancellation { task_id: run_id(), execution_id: of(execution_id()) });
    let report = || build!(ReportAck { execution_id: execution_id() });
    prop_oneof![
        welcome.prop_map(ToWorker::Welcome),
        assignment.prop_map(|body| ToWorker::TaskAssignment(Box::new(body))),
        cancellation.prop_map(ToWorker::TaskCancellation),
        build!(Ack { execution_id: execution_id(), source: source(), seq: large() })
            .prop_map(ToWorker::Ack),
        report().prop_map(ToWorker::ReportAck),
        report().prop_map(ToWorker::Stop),
        Just(ToWorker::Drain(Drain {})),
        Just(ToWorker::Resume(Drain {})),
    ]
}

pub(crate) fn to_sidecar() -> impl Strategy<Value = ToSidecar> {
    let cause = select(vec![StopCause::Cancelled, StopCause::Timeout, StopCause::Shutdown]);
    prop_oneof![
        build!(Assign { key: secret(), spec: spec() })
            .prop_map(|body| ToSidecar::Assign(Box::new(body))),
        build!(Seq { seq: large() }).prop_map(ToSidecar::Resume),
        build!(Seq { seq: large() }).prop_map(ToSidecar::Ack),
        build!(Cancel { cause: cause, grace_ms: large() }).prop_map(ToSidecar::Cancel),
        build!(Message { text: text() }).prop_map(ToSidecar::Message),
    ]
}

pub(crate) fn from_sidecar() -> impl Strategy<Value = FromSidecar> {
    let hello = build!(SidecarHello { key: of(secret()), version: text(), last_seq: large() });
    prop_oneof![hello.prop_map(FromSidecar::Hello), event_line().prop_map(FromSidecar::Event)]
}

pub(crate) fn from_harness() -> impl Strategy<Value = FromHarness> {
    prop_oneof![event().prop_map(FromHarness::Event), exit().prop_map(FromHarness::Exit)]
}
