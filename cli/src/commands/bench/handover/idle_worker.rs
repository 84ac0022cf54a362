//! A worker that is only its WebSocket: says when an assignment arrives, and that it is done at once.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use protocol::{
    ids::WorkerId,
    link::{
        FromWorker, Heartbeat, Hello, PROTOCOL_VERSION, TaskAssignment, TaskClaimed, TaskCompleted,
        ToWorker,
    },
    secret::Secret,
    spec::RunSpec,
};
use service::lifecycle::Lifecycle;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{CAPACITY, Waiting};
use crate::failure::Failure;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, says hello, and goes on in a task of `life`.
pub(crate) async fn start(
    url: &str,
    key: &Secret,
    id: &str,
    waiting: &Waiting,
    life: &Lifecycle,
) -> Result<(), Failure> {
    let broken = |error: String| Failure::platform(format!("the worker's link: {error}"));
    let root = url.replacen("http", "ws", 1);
    let address = format!("{root}/api/v1/selfhosted/worker/ws?worker_id={id}");
    let mut request = address.into_client_request().map_err(|e| broken(e.to_string()))?;
    let bearer = format!("Bearer {}", key.expose());
    let bearer = bearer.parse().map_err(|_| broken("the key fits no header".to_owned()))?;
    request.headers_mut().insert("authorization", bearer);
    let (mut socket, _) =
        tokio_tungstenite::connect_async(request).await.map_err(|e| broken(e.to_string()))?;
    send(&mut socket, &FromWorker::Hello(hello(id))).await;
    let worker_id: WorkerId = id.parse().map_err(|_| broken("a wrong id".to_owned()))?;
    let (waiting, draining) = (waiting.clone(), life.draining().clone());
    life.spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                _ = beat.tick() => {
                    let beat = Heartbeat { executions: Vec::new(), free: CAPACITY, draining: false, disk: None };
                    send(&mut socket, &FromWorker::Heartbeat(beat)).await;
                    continue;
                }
                () = draining.cancelled() => return,
            };
            let Some(Ok(message)) = message else { return };
            let Message::Text(text) = message else { continue };
            let at = Instant::now();
            if let Ok(ToWorker::TaskAssignment(assignment)) = ToWorker::parse(text.as_str()) {
                arrived(&waiting, &assignment, at);
                finish(&mut socket, &worker_id, &assignment).await;
            }
        }
    });
    Ok(())
}

fn hello(id: &str) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        instance_id: id.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tags: Vec::new(),
        backend: "bench".to_owned(),
        capacity: CAPACITY,
        draining: false,
        disk: None,
        executions: Vec::new(),
    }
}

fn arrived(waiting: &Waiting, assignment: &TaskAssignment, at: Instant) {
    let Some(RunSpec { prompt, .. }) = &assignment.spec else { return };
    let waiting = waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(prompt);
    if let Some(waiting) = waiting {
        // Whoever waited may have given up.
        let _ = waiting.send(at);
    }
}

async fn finish(socket: &mut Socket, worker_id: &WorkerId, assignment: &TaskAssignment) {
    let (task_id, execution_id) =
        (assignment.task_id.clone(), Some(assignment.execution_id.clone()));
    let claimed = TaskClaimed {
        task_id: task_id.clone(),
        worker_id: worker_id.clone(),
        execution_id: execution_id.clone(),
    };
    send(socket, &FromWorker::TaskClaimed(claimed)).await;
    let completed = TaskCompleted {
        task_id,
        execution_id,
        message: "done".to_owned(),
        task_state: None,
        exit_code: Some(0),
        peak_memory_bytes: None,
    };
    send(socket, &FromWorker::TaskCompleted(completed)).await;
}

async fn send(socket: &mut Socket, frame: &FromWorker) {
    // A closed socket shows at the next read.
    let _ = socket.send(Message::text(frame.to_json())).await;
}
