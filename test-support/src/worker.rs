//! A worker that is only its WebSocket: says what a test tells it to, in the Ozma dialect or the stock one.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use protocol::{
    event::{Event, EventLine, EventSource},
    failure::FailureReason,
    ids::{ExecutionId, WorkerId},
    link::{
        Events, FromWorker, Heartbeat, Hello, PROTOCOL_VERSION, RunningExecution, TaskAssignment,
        TaskClaimed, TaskCompleted, TaskFailed, TaskRejected, ToWorker, Verdict, Welcome,
    },
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::wait::in_time;

/// What a worker of ours says first; change what the test is about.
pub fn hello(capacity: u32) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        instance_id: format!("fake-{:016x}", getrandom::u64().expect("random numbers")),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tags: Vec::new(),
        backend: "fake".to_owned(),
        capacity,
        draining: false,
        disk: None,
        executions: Vec::new(),
    }
}

/// What still runs on a worker that comes back, for its `hello`.
pub fn running(assignment: &TaskAssignment) -> RunningExecution {
    RunningExecution {
        run_id: assignment.task_id.clone(),
        execution_id: assignment.execution_id.clone(),
    }
}

/// Numbered events, the first with `first_seq`.
pub fn numbered(first_seq: u64, events: &[Event]) -> Vec<EventLine> {
    (first_seq..).zip(events).map(|(seq, event)| EventLine::new(seq, 1, event)).collect()
}

/// A connected worker. Dropping it closes the TCP connection without a word, as a crash does.
#[derive(Debug)]
pub struct FakeWorker {
    id: WorkerId,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What the plane answered to `hello`; none for a stock worker.
    pub welcome: Option<Welcome>,
}

impl FakeWorker {
    /// Connects, says `hello` with room for `capacity` runs and waits for `welcome`.
    ///
    /// # Panics
    /// The plane refuses or does not answer.
    pub async fn connect(url: &str, token: &str, id: &str, capacity: u32) -> Self {
        Self::connect_with(url, token, id, hello(capacity)).await
    }

    /// [`connect`](Self::connect) with a `hello` of the test's own.
    ///
    /// # Panics
    /// The plane refuses or does not answer.
    pub async fn connect_with(url: &str, token: &str, id: &str, hello: Hello) -> Self {
        let mut worker = Self::connect_stock(url, token, id).await;
        worker.send(&FromWorker::Hello(hello)).await;
        match worker.next().await {
            ToWorker::Welcome(welcome) => worker.welcome = Some(welcome),
            other => panic!("expected welcome, got {other:?}"),
        }
        worker
    }

    /// Connects as the stock worker does: without a word.
    ///
    /// # Panics
    /// The plane refuses.
    pub async fn connect_stock(url: &str, token: &str, id: &str) -> Self {
        match Self::try_connect(url, Some(token), id).await {
            Ok(worker) => worker,
            Err(error) => panic!("the plane refused the worker: {error}"),
        }
    }

    /// Opens the socket below `url` (`http://host:port`) and nothing else.
    ///
    /// # Errors
    /// The handshake is refused; [`refusal`] reads the status.
    ///
    /// # Panics
    /// `url` or `token` do not fit a request.
    pub async fn try_connect(
        url: &str,
        token: Option<&str>,
        id: &str,
    ) -> Result<Self, tungstenite::Error> {
        let root = url.replacen("http", "ws", 1);
        let root = root.trim_end_matches('/');
        let address =
            format!("{root}/api/v1/selfhosted/worker/ws?worker_id={}", id.replace(' ', "+"));
        let mut request = address.into_client_request().expect("the address is one");
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("the token fits a header");
            request.headers_mut().insert("authorization", value);
        }
        let (socket, _) =
            in_time("the worker's handshake", Box::pin(connect_async(request))).await?;
        Ok(Self { id: id.parse().expect("a worker id"), socket, welcome: None })
    }

    /// The verdict on one execution of the `hello`.
    pub fn verdict(&self, execution: &ExecutionId) -> Option<&Verdict> {
        self.welcome.as_ref()?.executions.iter().find(|verdict| verdict.execution_id == *execution)
    }

    /// # Panics
    /// The socket is closed.
    pub async fn send(&mut self, frame: &FromWorker) {
        self.send_text(&frame.to_json()).await;
    }

    /// Sends any text, for frames no worker of ours would send.
    ///
    /// # Panics
    /// The socket is closed.
    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the socket takes a frame");
    }

    /// The next frame.
    ///
    /// # Panics
    /// None comes, the socket closes, or the frame does not parse.
    pub async fn next(&mut self) -> ToWorker {
        in_time("a frame from the plane", self.try_next()).await.expect("the socket is open")
    }

    /// The next frame, or nothing when the plane closed the socket.
    ///
    /// # Panics
    /// The frame does not parse.
    pub async fn try_next(&mut self) -> Option<ToWorker> {
        loop {
            let text = match self.socket.next().await?.ok()? {
                Message::Text(text) => text.to_string(),
                Message::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Message::Close(_) => return None,
                _ => continue,
            };
            return Some(ToWorker::parse(&text).expect("the plane's frames parse"));
        }
    }

    /// The next frame that `pick` takes; the others are passed over.
    ///
    /// # Panics
    /// None comes in time.
    pub async fn next_where<T>(&mut self, mut pick: impl FnMut(ToWorker) -> Option<T>) -> T {
        in_time("the frame waited for", async {
            loop {
                let frame = self.try_next().await.expect("the socket is open");
                if let Some(found) = pick(frame) {
                    return found;
                }
            }
        })
        .await
    }

    /// # Panics
    /// None comes in time.
    pub async fn next_assignment(&mut self) -> TaskAssignment {
        self.next_where(|frame| match frame {
            ToWorker::TaskAssignment(assignment) => Some(*assignment),
            _ => None,
        })
        .await
    }

    /// Whether nothing but heartbeat-like silence comes for `quiet`: no assignment, no cancellation.
    pub async fn hears_nothing_for(&mut self, quiet: Duration) -> bool {
        tokio::time::timeout(quiet, self.try_next()).await.is_err()
    }

    /// Says that it took the run.
    pub async fn claim(&mut self, assignment: &TaskAssignment) {
        let claimed = TaskClaimed {
            task_id: assignment.task_id.clone(),
            worker_id: self.id.clone(),
            execution_id: self.named(assignment),
        };
        self.send(&FromWorker::TaskClaimed(claimed)).await;
    }

    /// Says that it did not take the run.
    pub async fn reject(&mut self, assignment: &TaskAssignment, reason: &str) {
        let rejected = TaskRejected {
            task_id: assignment.task_id.clone(),
            execution_id: self.named(assignment),
            reason: reason.to_owned(),
        };
        self.send(&FromWorker::TaskRejected(rejected)).await;
    }

    pub async fn send_events(
        &mut self,
        execution: &ExecutionId,
        source: EventSource,
        events: Vec<EventLine>,
    ) {
        let events = Events { execution_id: execution.clone(), source, events };
        self.send(&FromWorker::Events(events)).await;
    }

    /// Waits until the plane holds `seq` of this source.
    pub async fn acked(&mut self, execution: &ExecutionId, source: EventSource, seq: u64) {
        self.next_where(|frame| match frame {
            ToWorker::Ack(ack) => {
                (ack.execution_id == *execution && ack.source == source && ack.seq >= seq)
                    .then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub async fn complete(&mut self, assignment: &TaskAssignment) {
        self.report_completed(assignment, None).await;
    }

    /// Reports the end the plane had asked for.
    pub async fn complete_cancelled(&mut self, assignment: &TaskAssignment) {
        self.report_completed(assignment, Some("CANCELLED")).await;
    }

    async fn report_completed(&mut self, assignment: &TaskAssignment, state: Option<&str>) {
        let completed = TaskCompleted {
            task_id: assignment.task_id.clone(),
            execution_id: self.named(assignment),
            message: "done".to_owned(),
            task_state: state.map(str::to_owned),
            exit_code: state.is_none().then_some(0),
            peak_memory_bytes: None,
            after: None,
        };
        self.send(&FromWorker::TaskCompleted(completed)).await;
    }

    pub async fn fail(&mut self, assignment: &TaskAssignment, reason: FailureReason, text: &str) {
        let failed = TaskFailed {
            task_id: assignment.task_id.clone(),
            execution_id: self.named(assignment),
            message: text.to_owned(),
            failure_reason: Some(reason),
            exit_code: None,
            oom_killed: false,
            peak_memory_bytes: None,
            after: None,
        };
        self.send(&FromWorker::TaskFailed(failed)).await;
    }

    /// Waits until the plane holds the terminal report.
    pub async fn report_acked(&mut self, execution: &ExecutionId) {
        self.next_where(|frame| match frame {
            ToWorker::ReportAck(ack) => (ack.execution_id == *execution).then_some(()),
            _ => None,
        })
        .await;
    }

    pub async fn heartbeat(&mut self, executions: &[ExecutionId], free: u32) {
        let heartbeat =
            Heartbeat { executions: executions.to_vec(), free, draining: false, disk: None };
        self.send(&FromWorker::Heartbeat(heartbeat)).await;
    }

    /// Closes the socket with a close frame, as an orderly stop does.
    pub async fn close(mut self) {
        // The plane may have gone first.
        let _ = self.socket.close(None).await;
    }

    /// A stock worker names no executions.
    fn named(&self, assignment: &TaskAssignment) -> Option<ExecutionId> {
        self.welcome.is_some().then(|| assignment.execution_id.clone())
    }
}

/// The HTTP status of a refused handshake.
pub fn refusal(error: &tungstenite::Error) -> Option<u16> {
    match error {
        tungstenite::Error::Http(response) => Some(response.status().as_u16()),
        _ => None,
    }
}
