//! A plane that is only its end of the link: keeps what it is sent, acknowledges it as told, and checks that
//! numbers follow each other.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{SinkExt, StreamExt};
use protocol::{
    event::{Event, EventLine, EventSource},
    ids::ExecutionId,
    link::{
        Ack, FromWorker, Heartbeat, Hello, PROTOCOL_VERSION, ReportAck, StockTask, TaskAssignment,
        TaskCancellation, TaskDefinition, ToWorker, Verdict, Welcome,
    },
    spec::RunSpec,
};
use test_support::wait::eventually;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{broadcast, watch},
    task::AbortHandle,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
    http::StatusCode,
};

pub(crate) const TOKEN: &str = "the-workers-token";

/// Long enough for a busy machine, short enough to wait for.
const LEASE_MS: u64 = 2_000;
const HEARTBEAT_MS: u64 = 200;

#[derive(Default)]
pub(crate) struct Seen {
    /// Connections that are read to this moment.
    pub(crate) connected: usize,
    pub(crate) dials: usize,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) claimed: Vec<ExecutionId>,
    pub(crate) rejected: Vec<(ExecutionId, String)>,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) reports: HashMap<ExecutionId, FromWorker>,
    events: HashMap<(ExecutionId, EventSource), Vec<EventLine>>,
    /// Events in the order in which they came, of both sources.
    arrived: Vec<(ExecutionId, EventLine)>,
    /// Executions the plane believes no longer.
    over: HashSet<ExecutionId>,
    assigned: HashMap<ExecutionId, RunSpec>,
}

/// What the plane does not do for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    pub(crate) acks: bool,
    pub(crate) report_acks: bool,
    pub(crate) entry: bool,
}

pub(crate) struct Plane {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    seen: Mutex<Seen>,
    withheld: watch::Sender<Withheld>,
    say: broadcast::Sender<String>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            withheld: watch::Sender::default(),
            say: broadcast::Sender::new(64),
        });
        let mut tasks = tokio::task::JoinSet::new();
        let accepting = tasks.spawn(accept(listener, Arc::clone(&shared)));
        tasks.detach_all();
        Self { addr, shared, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap()
    }

    pub(crate) fn withhold(&self, withheld: Withheld) {
        self.shared.withheld.send_replace(withheld);
    }

    pub(crate) fn assign(&self, spec: &RunSpec) {
        self.seen().assigned.insert(spec.execution_id.clone(), spec.clone());
        self.say(&ToWorker::TaskAssignment(Box::new(TaskAssignment {
            task_id: spec.run_id.clone(),
            execution_id: spec.execution_id.clone(),
            task: StockTask {
                id: spec.run_id.clone(),
                title: spec.title.clone(),
                task_definition: TaskDefinition { prompt: spec.prompt.clone() },
            },
            docker_image: String::new(),
            sidecar_image: String::new(),
            env_vars: std::collections::BTreeMap::new(),
            spec: Some(spec.clone()),
        })));
    }

    pub(crate) fn cancel(&self, spec: &RunSpec) {
        self.say(&ToWorker::TaskCancellation(TaskCancellation {
            task_id: spec.run_id.clone(),
            execution_id: Some(spec.execution_id.clone()),
        }));
    }

    /// Believes this execution no longer; says so now, or to the next hello.
    pub(crate) fn supersede(&self, spec: &RunSpec) {
        self.seen().over.insert(spec.execution_id.clone());
        let execution_id = spec.execution_id.clone();
        // Nobody may be connected to hear it.
        let _ = self.shared.say.send(ToWorker::Stop(ReportAck { execution_id }).to_json());
    }

    pub(crate) fn say(&self, message: &ToWorker) {
        self.say_anything(&message.to_json());
    }

    pub(crate) fn say_anything(&self, text: &str) {
        self.shared.say.send(text.to_owned()).unwrap();
    }

    /// Loses everything of this execution, as if nothing but the assignment had arrived.
    pub(crate) fn forget(&self, spec: &RunSpec) {
        let mut seen = self.seen();
        seen.events.retain(|(id, _), _| *id != spec.execution_id);
        seen.arrived.retain(|(id, _)| *id != spec.execution_id);
        seen.reports.remove(&spec.execution_id);
    }

    pub(crate) async fn report(&self, spec: &RunSpec) -> FromWorker {
        let id = &spec.execution_id;
        eventually("the report", || async { self.seen().reports.get(id).cloned() }).await
    }

    /// The events of one source so far.
    pub(crate) fn events(&self, spec: &RunSpec, source: EventSource) -> Vec<Event> {
        let seen = self.seen();
        let lines = seen.events.get(&(spec.execution_id.clone(), source));
        lines.into_iter().flatten().filter_map(EventLine::event).collect()
    }

    /// The events of both sources, as a watcher sees them.
    pub(crate) fn arrived(&self, spec: &RunSpec) -> Vec<Event> {
        let seen = self.seen();
        let own = seen.arrived.iter().filter(|(id, _)| *id == spec.execution_id);
        own.filter_map(|(_, line)| line.event()).collect()
    }

    /// Everything the run printed so far.
    pub(crate) fn output(&self, spec: &RunSpec) -> String {
        self.events(spec, EventSource::Sidecar)
            .into_iter()
            .filter_map(|event| match event {
                Event::Output { text: Some(text), partial: true, .. } => Some(text),
                Event::Output { text: Some(text), .. } => Some(text + "\n"),
                _ => None,
            })
            .collect()
    }

    pub(crate) async fn output_line(&self, spec: &RunSpec, line: &str) {
        eventually(&format!("the output {line:?}"), || async {
            self.output(spec).lines().any(|said| said == line).then_some(())
        })
        .await;
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.seen.lock().unwrap().dials += 1;
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

#[expect(clippy::result_large_err, reason = "the library's own type of a refusal")]
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut say = shared.say.subscribe();
    let refuse = shared.withheld.borrow().entry;
    let check = move |request: &Request, response: Response| {
        let bearer = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        let known = bearer == Some(&format!("Bearer {TOKEN}")) && !refuse;
        assert!(request.uri().query().unwrap().starts_with("worker_id="));
        if known {
            Ok(response)
        } else {
            let mut refusal = Response::new(()).map(|()| None);
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            Err(refusal)
        }
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
    let (mut writer, mut reader) = socket.split();
    shared.seen.lock().unwrap().connected += 1;
    let _counted = Counted(Arc::clone(&shared));
    let mut withheld = shared.withheld.subscribe();
    withheld.mark_changed();
    loop {
        let answers = tokio::select! {
            message = reader.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let message = FromWorker::parse(text.as_str()).unwrap();
                    texts(&take(message, &shared))
                }
                Some(Ok(_)) => Vec::new(),
                _ => return,
            },
            message = say.recv() => match message {
                Ok(message) => vec![message],
                Err(_) => return,
            },
            _ = withheld.changed() => texts(&overdue(&shared)),
        };
        for answer in answers {
            if writer.send(Message::text(answer)).await.is_err() {
                return;
            }
        }
    }
}

/// One connection, until everything that came over it was read.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Ok(mut seen) = self.0.seen.lock() {
            seen.connected -= 1;
        }
    }
}

fn texts(messages: &[ToWorker]) -> Vec<String> {
    messages.iter().map(ToWorker::to_json).collect()
}

/// What an acknowledgement was withheld for, and is not any more.
fn overdue(shared: &Shared) -> Vec<ToWorker> {
    let withheld = *shared.withheld.borrow();
    let seen = shared.seen.lock().unwrap();
    let mut answers = Vec::new();
    if !withheld.acks {
        for ((execution_id, source), lines) in &seen.events {
            let (execution_id, source) = (execution_id.clone(), *source);
            answers.push(ToWorker::Ack(Ack { execution_id, source, seq: lines.len() as u64 }));
        }
    }
    if !withheld.report_acks {
        for execution_id in seen.reports.keys().cloned() {
            answers.push(ToWorker::ReportAck(ReportAck { execution_id }));
        }
    }
    answers
}

fn take(message: FromWorker, shared: &Shared) -> Vec<ToWorker> {
    let withheld = *shared.withheld.borrow();
    let mut seen = shared.seen.lock().unwrap();
    match message {
        FromWorker::Hello(hello) => {
            let held = |id: &ExecutionId, source| {
                seen.events.get(&(id.clone(), source)).map_or(0, Vec::len) as u64
            };
            let executions = hello
                .executions
                .iter()
                .map(|running| &running.execution_id)
                .map(|id| Verdict {
                    execution_id: id.clone(),
                    keep: seen.assigned.contains_key(id) && !seen.over.contains(id),
                    worker_seq: held(id, EventSource::Worker),
                    sidecar_seq: held(id, EventSource::Sidecar),
                })
                .collect();
            seen.hellos.push(hello);
            return vec![ToWorker::Welcome(Welcome {
                protocol: PROTOCOL_VERSION,
                lease_ms: LEASE_MS,
                heartbeat_ms: HEARTBEAT_MS,
                executions,
            })];
        }
        FromWorker::TaskClaimed(claim) => seen.claimed.push(claim.execution_id.unwrap()),
        FromWorker::TaskRejected(no) => seen.rejected.push((no.execution_id.unwrap(), no.reason)),
        FromWorker::Heartbeat(heartbeat) => seen.heartbeat = Some(heartbeat),
        FromWorker::Events(batch) => {
            let key = (batch.execution_id.clone(), batch.source);
            let Seen { events, arrived, .. } = &mut *seen;
            let lines = events.entry(key).or_default();
            for line in batch.events {
                let next = lines.len() as u64 + 1;
                assert!(line.seq <= next, "a gap: {} after {}", line.seq, next - 1);
                if line.seq == next {
                    arrived.push((batch.execution_id.clone(), line.clone()));
                    lines.push(line);
                }
            }
            if !withheld.acks {
                let (execution_id, source) = (batch.execution_id, batch.source);
                let seq = lines.len() as u64;
                return vec![ToWorker::Ack(Ack { execution_id, source, seq })];
            }
        }
        FromWorker::TaskCompleted(_) | FromWorker::TaskFailed(_) => {
            let id = match &message {
                FromWorker::TaskCompleted(done) => done.execution_id.clone().unwrap(),
                FromWorker::TaskFailed(failed) => failed.execution_id.clone().unwrap(),
                _ => unreachable!("matched above"),
            };
            seen.reports.insert(id.clone(), message);
            if !withheld.report_acks {
                seen.over.insert(id.clone());
                return vec![ToWorker::ReportAck(ReportAck { execution_id: id })];
            }
        }
        FromWorker::Unknown(kind) => panic!("an unknown message {kind}"),
    }
    Vec::new()
}
