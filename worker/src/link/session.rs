//! One connection to the plane, from `hello` to its end. Reading goes on while a write waits, so that two
//! sides with full buffers do not wait for each other.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use protocol::{
    limits::MAX_FRAME_BYTES,
    link::{FromWorker, Hello, PROTOCOL_VERSION, ToWorker, Welcome},
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{dial::Socket, identity::Identity};
use crate::{executions::Executions, sync::lock};

/// From the connection to `welcome`.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// For one frame out.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Events are gathered for this long, unless the link was quiet for as long.
const GATHER: Duration = Duration::from_millis(15);

/// What a plane may ask for; anything else is brought into this range.
const HEARTBEAT: std::ops::RangeInclusive<u64> = 50..=60_000;

pub(super) struct Session<'a> {
    executions: &'a Arc<Executions>,
    writer: SplitSink<Socket, Message>,
    reader: SplitStream<Socket>,
    heartbeat: Duration,
    /// Nothing heard for this long: the link is dead, whatever TCP says. Shorter than a lease.
    silence: Duration,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        socket: Socket,
        identity: &Identity,
        executions: &'a Arc<Executions>,
    ) -> anyhow::Result<Self> {
        let (mut writer, mut reader) = socket.split();
        let hello = FromWorker::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            instance_id: identity.instance_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tags: identity.tags.clone(),
            backend: identity.backend.to_owned(),
            capacity: identity.capacity,
            draining: executions.is_draining(),
            disk: None,
            executions: executions.running(),
        });
        write(&mut writer, &hello).await?;
        let welcome = tokio::time::timeout(WELCOME_WITHIN, welcome(&mut reader))
            .await
            .context("the plane did not answer the hello")??;
        ensure!(
            welcome.protocol == PROTOCOL_VERSION,
            "the plane speaks version {} of the link, this worker {PROTOCOL_VERSION}",
            welcome.protocol
        );
        executions.verdicts(&welcome.executions);
        let heartbeat = welcome.heartbeat_ms.clamp(*HEARTBEAT.start(), *HEARTBEAT.end());
        let silence = welcome.lease_ms.saturating_sub(heartbeat).max(2 * heartbeat);
        Ok(Self {
            executions,
            writer,
            reader,
            heartbeat: Duration::from_millis(heartbeat),
            silence: Duration::from_millis(silence),
        })
    }

    /// Until the connection ends; the answer is why.
    pub(super) async fn run(self) -> anyhow::Error {
        let Self { executions, mut writer, mut reader, heartbeat, silence } = self;
        let heard = Mutex::new(Instant::now());
        let ended = tokio::select! {
            ended = read(&mut reader, executions, &heard) => ended,
            ended = send(&mut writer, executions, heartbeat) => ended,
            () = silent(&heard, silence) => {
                Err(anyhow!("nothing heard of the plane for {} ms", silence.as_millis()))
            }
        };
        match ended {
            Ok(()) => anyhow!("the plane closed the link"),
            Err(error) => error,
        }
    }
}

async fn silent(heard: &Mutex<Instant>, silence: Duration) {
    loop {
        let until = *lock(heard) + silence;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

async fn welcome(reader: &mut SplitStream<Socket>) -> anyhow::Result<Welcome> {
    loop {
        let message = reader.next().await.context("the plane closed the link")??;
        match text(&message)? {
            None => {}
            Some(text) => match ToWorker::parse(text) {
                Ok(ToWorker::Welcome(welcome)) => return Ok(welcome),
                Ok(other) => {
                    tracing::warn!(
                        kind = other.kind(),
                        "a frame before the welcome is passed over"
                    );
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a frame that cannot be read is passed over");
                }
            },
        }
    }
}

/// The text of a data frame.
fn text(message: &Message) -> anyhow::Result<Option<&str>> {
    match message {
        Message::Text(text) => Ok(Some(text.as_str())),
        Message::Binary(bytes) => Ok(std::str::from_utf8(bytes).ok()),
        Message::Close(Some(close)) => {
            let reason: String = close.reason.as_str().chars().take(200).collect();
            bail!("the plane closed the link with {}: {reason}", u16::from(close.code))
        }
        _ => Ok(None),
    }
}

async fn read(
    reader: &mut SplitStream<Socket>,
    executions: &Arc<Executions>,
    heard: &Mutex<Instant>,
) -> anyhow::Result<()> {
    while let Some(message) = reader.next().await {
        let message = message.context("read from the plane")?;
        *lock(heard) = Instant::now();
        let Some(text) = text(&message)? else { continue };
        match ToWorker::parse(text) {
            Ok(message) => take(message, executions),
            Err(error) => {
                tracing::warn!(error = %error, "a frame that cannot be read is passed over");
            }
        }
    }
    Ok(())
}

fn take(message: ToWorker, executions: &Arc<Executions>) {
    match message {
        ToWorker::TaskAssignment(assignment) => executions.assign(*assignment),
        ToWorker::TaskCancellation(cancellation) => executions.cancel(&cancellation),
        ToWorker::Ack(ack) => executions.ack(&ack),
        ToWorker::ReportAck(done) => executions.report_acked(&done.execution_id),
        ToWorker::Stop(stop) => executions.superseded(&stop.execution_id),
        ToWorker::Drain(_) => executions.drain_for_plane(),
        ToWorker::Resume(_) => executions.resume_for_plane(),
        ToWorker::Welcome(_) => tracing::warn!("a second welcome is passed over"),
        ToWorker::Unknown(kind) => {
            tracing::info!(kind, "a frame this version does not know is passed over");
        }
    }
}

async fn send(
    writer: &mut SplitSink<Socket, Message>,
    executions: &Arc<Executions>,
    heartbeat: Duration,
) -> anyhow::Result<()> {
    let mut beat = tokio::time::interval(heartbeat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        flush(writer, executions).await?;
        let flushed = Instant::now();
        tokio::select! {
            () = executions.wake.notified() => tokio::time::sleep_until(flushed + GATHER).await,
            _ = beat.tick() => {
                write(writer, &FromWorker::Heartbeat(executions.heartbeat())).await?;
                // Answered by whatever reads the socket at the other end: shows a dead link.
                put(writer, Message::Ping(Vec::new().into())).await?;
            }
        }
    }
}

/// Everything there is to send, one message of each execution in turn.
async fn flush(
    writer: &mut SplitSink<Socket, Message>,
    executions: &Arc<Executions>,
) -> anyhow::Result<()> {
    while let Some(rejection) = executions.next_rejection() {
        write(writer, &rejection).await?;
    }
    loop {
        let mut sent = false;
        for held in executions.all() {
            if let Some(message) = held.outbox.next() {
                write(writer, &message).await?;
                sent = true;
            }
        }
        if !sent {
            return Ok(());
        }
    }
}

async fn write(
    writer: &mut SplitSink<Socket, Message>,
    message: &FromWorker,
) -> anyhow::Result<()> {
    let text = message.to_json();
    if text.len() > MAX_FRAME_BYTES {
        // Cannot be: batches are cut far below it. Better left out than a link that breaks for ever.
        tracing::error!(kind = message.kind(), "a frame of {} bytes was left out", text.len());
        return Ok(());
    }
    put(writer, Message::Text(text.into())).await
}

async fn put(writer: &mut SplitSink<Socket, Message>, message: Message) -> anyhow::Result<()> {
    tokio::time::timeout(WRITE_WITHIN, writer.send(message))
        .await
        .context("the plane does not read")?
        .context("write to the plane")
}
