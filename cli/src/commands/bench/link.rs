//! A simulated worker's end of the link: real sockets and frames, heartbeats as often as the plane asks, nothing
//! behind it. What is queued leaves together, when there is nothing left to read.

pub(crate) mod frames;

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, SinkExt, StreamExt};
use protocol::secret::Secret;
use tokio::{
    net::TcpStream,
    time::{Interval, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::failure::Failure;

/// How long a plane may take to answer a hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);

/// What a socket holds before there is a message: with the library's default ten thousand idle workers would take
/// more than a gigabyte of this process.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Assigned(Assigned),
    /// Everything up to `seq` is stored.
    Acked {
        execution: String,
        seq: u64,
    },
    /// The terminal report is stored.
    Reported {
        execution: String,
    },
    /// The plane does not want it to go on.
    Stopped {
        execution: String,
    },
    Closed,
}

#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) run: String,
    pub(crate) execution: String,
    /// When it was read from the socket.
    pub(crate) at: Instant,
}

pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
    id: String,
    capacity: u32,
    beat: Interval,
    held: HashSet<String>,
    queued: bool,
    /// What the plane said of leases.
    pub(crate) lease_ms: u64,
    pub(crate) heartbeat_ms: u64,
}

impl Link {
    /// Dials, says hello, and waits for the welcome.
    ///
    /// # Errors
    /// The plane does not take it.
    pub(crate) async fn dial(
        plane: SocketAddr,
        key: &Secret,
        id: &str,
        capacity: u32,
    ) -> Result<Self, Failure> {
        let welcome = Self::open(plane, key, id, capacity);
        let opened = tokio::time::timeout(WELCOME_WITHIN, welcome).await;
        let opened = opened.unwrap_or_else(|_| Err("no welcome in time".to_owned()));
        opened.map_err(|error| Failure::platform(format!("a simulated worker's link: {error}")))
    }

    async fn open(
        plane: SocketAddr,
        key: &Secret,
        id: &str,
        capacity: u32,
    ) -> Result<Self, String> {
        let address = format!("ws://{plane}/api/v1/selfhosted/worker/ws?worker_id={id}");
        let mut request = address.into_client_request().map_err(|error| error.to_string())?;
        let bearer = format!("Bearer {}", key.expose()).parse();
        let bearer = bearer.map_err(|_| "the key fits no header".to_owned())?;
        request.headers_mut().insert("authorization", bearer);
        let stream = TcpStream::connect(plane).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| error.to_string())?;
        let hello = frames::hello(id, capacity);
        socket.send(Message::text(hello)).await.map_err(|error| error.to_string())?;
        let (lease_ms, heartbeat_ms) = loop {
            let message = socket.next().await.ok_or("closed before the welcome")?;
            let Message::Text(text) = message.map_err(|error| error.to_string())? else { continue };
            let frame: frames::Incoming<'_> =
                serde_json::from_str(text.as_str()).map_err(|error| error.to_string())?;
            if frame.kind == "welcome" {
                break (frame.data.lease_ms, frame.data.heartbeat_ms);
            }
        };
        let every = Duration::from_millis(heartbeat_ms.max(50));
        // Real workers start at different times; so do these beats.
        let phase = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        let first = tokio::time::Instant::now() + every.mul_f64(phase);
        let mut beat = tokio::time::interval_at(first, every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (id, held) = (id.to_owned(), HashSet::new());
        Ok(Self { socket, id, capacity, beat, held, queued: false, lease_ms, heartbeat_ms })
    }

    /// The next thing that concerns a run; beats meanwhile. Cancel-safe: what is queued stays queued.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let message = if let Some(message) = self.socket.next().now_or_never() {
                message
            } else {
                if self.queued && self.flush().await.is_err() {
                    return Heard::Closed;
                }
                tokio::select! {
                    message = self.socket.next() => message,
                    _ = self.beat.tick() => {
                        self.heartbeat().await;
                        continue;
                    }
                }
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Heard::Closed,
                // The answer to a ping is queued by the library.
                Some(Ok(_)) => {
                    self.queued = true;
                    continue;
                }
            };
            let at = Instant::now();
            let Ok(frame) = serde_json::from_str::<frames::Incoming<'_>>(text.as_str()) else {
                continue;
            };
            let execution = frame.data.execution_id.to_owned();
            match frame.kind.as_ref() {
                "task_assignment" => {
                    self.held.insert(execution.clone());
                    let run = frame.data.task_id.to_owned();
                    return Heard::Assigned(Assigned { run, execution, at });
                }
                "ack" => return Heard::Acked { execution, seq: frame.data.seq },
                // A heartbeat that crossed the acknowledgement is answered with another one.
                "report_ack" if self.held.remove(&execution) => {
                    return Heard::Reported { execution };
                }
                "stop" | "task_cancellation" => {
                    self.held.remove(&execution);
                    return Heard::Stopped { execution };
                }
                _ => {}
            }
        }
    }

    async fn heartbeat(&mut self) {
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let beat = frames::heartbeat(self.held.iter(), self.capacity.saturating_sub(held));
        self.queue(beat).await;
    }

    /// Puts a frame in line; it leaves with the next flush. A broken socket shows at the next read.
    pub(crate) async fn queue(&mut self, frame: String) {
        self.queued = true;
        let _ = self.socket.feed(Message::text(frame)).await;
    }

    /// `task_claimed`, in line.
    pub(crate) async fn claim(&mut self, assigned: &Assigned) {
        let frame = frames::claimed(&assigned.run, &assigned.execution, &self.id);
        self.queue(frame).await;
    }

    /// `task_completed`, in line.
    pub(crate) async fn complete(&mut self, run: &str, execution: &str) {
        self.queue(frames::completed(run, execution)).await;
    }

    /// Sends what is in line.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        self.queued = false;
        let broken = |error| Failure::platform(format!("a simulated worker's link: {error}"));
        self.socket.flush().await.map_err(broken)
    }
}
