//! One worker's socket, from the first frame to the last: reading in order, writing beside it.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use protocol::{
    ids::WorkerId,
    limits::MAX_FRAME_BYTES,
    link::{FromWorker, PROTOCOL_VERSION},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Peer,
    registry::{Connection, Dialect, Line},
};
use crate::{core::Core, store::StoreError};

/// A stock worker that says nothing for this long, not even a pong, is gone. One of ours speaks with every heartbeat.
const SILENCE: Duration = Duration::from_mins(1);

/// How often the plane pings.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Frames that leave together at most.
const MAX_AT_ONCE: usize = 64;

/// How long what leaves together may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a socket is closed from here.
#[derive(Debug, Clone, Copy)]
enum Goodbye {
    Draining,
    Replaced,
    TooLarge,
    Protocol,
    Late,
    Failed,
    Silent,
}

impl Goodbye {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Draining => (close_code::AWAY, "the plane is stopping; dial again".to_owned()),
            Self::Replaced => (close_code::POLICY, "replaced by a newer connection".to_owned()),
            Self::TooLarge => (close_code::SIZE, format!("a message over {MAX_FRAME_BYTES} bytes")),
            Self::Protocol => {
                (close_code::PROTOCOL, format!("this plane speaks protocol {PROTOCOL_VERSION}"))
            }
            Self::Late => (close_code::POLICY, "hello came too late; dial again".to_owned()),
            Self::Failed => (close_code::ERROR, "the plane failed; dial again".to_owned()),
            Self::Silent => (close_code::AWAY, "nothing heard for too long".to_owned()),
        };
        CloseFrame { code, reason: reason.into() }
    }
}

/// What came of a socket.
enum Heard {
    Frame(FromWorker),
    /// Nothing to act on: a ping, or a frame that could not be read.
    Sign,
    /// The worker ended it.
    Gone,
    End(Goodbye),
}

pub(super) async fn run(core: Arc<Core>, socket: WebSocket, worker_id: WorkerId) {
    let (sink, mut stream) = socket.split();
    let first = match first_frame(&core, &mut stream).await {
        Heard::Frame(frame) => Some(frame),
        Heard::Sign => None,
        Heard::Gone => return,
        Heard::End(goodbye) => return part(sink, goodbye).await,
    };
    let hello = match &first {
        Some(FromWorker::Hello(hello)) if hello.protocol != PROTOCOL_VERSION => {
            tracing::warn!(worker.id = %worker_id, protocol = hello.protocol, "worker refused");
            return part(sink, Goodbye::Protocol).await;
        }
        Some(FromWorker::Hello(hello)) => Some(hello),
        _ => None,
    };
    let (mut peer, queue) = match Box::pin(Peer::open(Arc::clone(&core), worker_id, hello)).await {
        Ok(opened) => opened,
        Err(error) => {
            unheard(&core, &error);
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "worker not taken");
            return part(sink, Goodbye::Failed).await;
        }
    };
    let connection = Arc::clone(peer.connection());
    tracing::info!(worker.id = %connection.worker_id, connection.id = connection.id,
        dialect = connection.dialect.as_str(), "worker {} connected", connection.worker_id);
    let last_word = CancellationToken::new();
    let writer = core.life.spawn(write(sink, queue, Arc::clone(&connection), last_word.clone()));
    let first = first.filter(|frame| !matches!(frame, FromWorker::Hello(_)));
    let goodbye = read(&core, &mut peer, &mut stream, first).await;
    peer.leave();
    last_word.cancel();
    match (writer.await, goodbye) {
        (Ok(sink), Some(goodbye)) => part(sink, goodbye).await,
        (Ok(_), None) => {}
        (Err(error), _) => tracing::error!(error = %error, "a worker's writer panicked"),
    }
    // In a box, as above: it holds much for a moment, and nothing while the connection lasts.
    Box::pin(peer.close()).await;
    tracing::info!(worker.id = %connection.worker_id, connection.id = connection.id,
        "worker {} disconnected", connection.worker_id);
}

/// The frame that tells the dialect; `Sign` when none came in time.
async fn first_frame(core: &Core, stream: &mut SplitStream<WebSocket>) -> Heard {
    let frame = async {
        loop {
            match hear(core, stream.next().await) {
                Heard::Sign => {}
                other => return other,
            }
        }
    };
    tokio::select! {
        () = core.life.draining().cancelled() => Heard::End(Goodbye::Draining),
        heard = timeout(core.settings.hello_timeout, frame) => heard.unwrap_or(Heard::Sign),
    }
}

/// Acts on frames one after another; tells why the socket is to be closed, `None` if it was.
async fn read(
    core: &Core,
    peer: &mut Peer,
    stream: &mut SplitStream<WebSocket>,
    first: Option<FromWorker>,
) -> Option<Goodbye> {
    let connection = Arc::clone(peer.connection());
    let silence = match connection.dialect {
        // What it holds is lost by then, and must not be handed to it once more.
        Dialect::Ozma => core.settings.lease,
        Dialect::Stock => SILENCE,
    };
    let mut next = first.map_or(Heard::Sign, Heard::Frame);
    loop {
        let acted = match next {
            // It took too long to say so, and was taken for a stock worker; the next time it is quicker.
            Heard::Frame(FromWorker::Hello(_)) if connection.dialect == Dialect::Stock => {
                return Some(Goodbye::Late);
            }
            // In a box: an idle connection holds the space of what it awaits most of the time, and no more.
            Heard::Frame(frame) => Box::pin(peer.take(frame)).await,
            Heard::Sign => Box::pin(peer.heard()).await,
            Heard::Gone => return None,
            Heard::End(goodbye) => return Some(goodbye),
        };
        let silent = Instant::now() + silence;
        let mut acted = acted;
        next = loop {
            if let Err(error) = acted {
                unheard(core, &error);
                tracing::warn!(worker.id = %connection.worker_id,
                    error = format!("{:#}", anyhow::Error::new(error)), "closing a worker's connection");
                return Some(Goodbye::Failed);
            }
            tokio::select! {
                () = core.life.draining().cancelled() => break Heard::End(Goodbye::Draining),
                () = connection.closed() => break Heard::End(Goodbye::Replaced),
                // While it is stored the next frame is read already.
                answered = peer.answered(), if peer.owes() => acted = answered,
                message = timeout_at(silent, stream.next()) => break match message {
                    Ok(message) => hear(core, message),
                    Err(_) => Heard::End(Goodbye::Silent),
                },
            }
        };
    }
}

/// A worker spoke and the database could not take it, because it is away or full: then a silence that is seen there
/// proves nothing. The reaper may see nothing of it, since it mostly reads.
fn unheard(core: &Core, error: &StoreError) {
    if matches!(error, StoreError::Unavailable(_) | StoreError::Full(_)) {
        core.expect_silence();
    }
}

fn hear(core: &Core, message: Option<Result<Message, axum::Error>>) -> Heard {
    let text = match message {
        Some(Ok(Message::Text(text))) => text,
        // The stock worker may send text as binary.
        Some(Ok(Message::Binary(bytes))) => match bytes.try_into() {
            Ok(text) => text,
            Err(_) => return unreadable(core, "not UTF-8"),
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Heard::Sign,
        Some(Ok(Message::Close(_))) | None => return Heard::Gone,
        Some(Err(error)) => {
            let text = error.to_string();
            let large = text.contains("too long") || text.contains("Space limit");
            return if large { Heard::End(Goodbye::TooLarge) } else { Heard::Gone };
        }
    };
    match FromWorker::parse(&text) {
        Ok(frame) => Heard::Frame(frame),
        Err(error) => unreadable(core, &error.to_string()),
    }
}

fn unreadable(core: &Core, why: &str) -> Heard {
    core.counters.bad_frames.add(1);
    tracing::warn!(error = why, "a worker's message was ignored");
    Heard::Sign
}

type Sink = SplitSink<WebSocket, Message>;

/// Sends what is in line, and pings, until the reading side is done; gives the sink back for a last word.
async fn write(
    mut sink: Sink,
    mut queue: Line,
    connection: Arc<Connection>,
    last_word: CancellationToken,
) -> Sink {
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.reset();
    loop {
        let message = tokio::select! {
            () = last_word.cancelled() => return sink,
            frame = queue.recv() => match frame {
                Some(frame) => Message::text(frame.to_json()),
                None => return sink,
            },
            _ = pings.tick() => Message::Ping(axum::body::Bytes::new()),
        };
        let sent = timeout(WRITE_TIMEOUT, async {
            sink.feed(message).await?;
            // Whatever else is in line leaves with it.
            for _ in 0..MAX_AT_ONCE {
                let Some(frame) = queue.try_recv() else { break };
                sink.feed(Message::text(frame.to_json())).await?;
            }
            sink.flush().await
        });
        if !matches!(Box::pin(sent).await, Ok(Ok(()))) {
            connection.closing.cancel();
            return sink;
        }
    }
}

async fn part(mut sink: Sink, goodbye: Goodbye) {
    let close = Message::Close(Some(goodbye.frame()));
    // The worker may be gone already; then there is nobody to tell.
    let _ = timeout(WRITE_TIMEOUT, sink.send(close)).await;
}
