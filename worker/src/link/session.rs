//! One connection to the plane on its socket: what is said, and when, is the talk's. Reading goes on while a
//! write waits, so that two sides with full buffers do not wait for each other.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use protocol::{
    limits::MAX_FRAME_BYTES,
    link::{FromWorker, ToWorker},
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{dial::Socket, identity::Identity, talk::Talk};
use crate::{executions::Executions, sync::lock};

/// For one frame out.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Events are gathered for this long, unless the link was quiet for as long.
const GATHER: Duration = Duration::from_millis(15);

pub(super) struct Session<'a> {
    executions: &'a Arc<Executions>,
    writer: SplitSink<Socket, Message>,
    reader: SplitStream<Socket>,
    talk: Talk,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        socket: Socket,
        identity: &Identity,
        executions: &'a Arc<Executions>,
    ) -> anyhow::Result<Self> {
        let (mut writer, mut reader) = socket.split();
        let (mut talk, hello) = Talk::begin(identity, executions, Instant::now());
        write(&mut writer, &hello).await?;
        while !talk.is_welcomed() {
            let message = tokio::time::timeout_at(talk.silent_at(), reader.next()).await;
            let now = Instant::now();
            let Ok(message) = message else {
                bail!(talk.overdue(now).map_or_else(|| anyhow!("no welcome"), Into::into));
            };
            let message = message.context("the plane closed the link")?;
            let Some(frame) = frame(message)? else { continue };
            executions.act(talk.hear(frame, executions, now)?);
        }
        Ok(Self { executions, writer, reader, talk })
    }

    /// Until the connection ends; the answer is why.
    pub(super) async fn run(self) -> anyhow::Error {
        let Self { executions, mut writer, mut reader, talk } = self;
        let talk = Mutex::new(talk);
        let ended = tokio::select! {
            ended = read(&mut reader, executions, &talk) => ended,
            ended = send(&mut writer, executions, &talk) => ended,
            error = overdue(&talk) => Err(error),
        };
        match ended {
            Ok(()) => anyhow!("the plane closed the link"),
            Err(error) => error,
        }
    }
}

async fn overdue(talk: &Mutex<Talk>) -> anyhow::Error {
    loop {
        let (overdue, deadline) = {
            let talk = lock(talk);
            (talk.overdue(Instant::now()), talk.silent_at())
        };
        if let Some(error) = overdue {
            return error.into();
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// The frame a message holds, if it holds one.
fn frame(
    message: Result<Message, tokio_tungstenite::tungstenite::Error>,
) -> anyhow::Result<Option<ToWorker>> {
    let message = message.context("read from the plane")?;
    let Some(text) = text(&message)? else { return Ok(None) };
    match ToWorker::parse(text) {
        Ok(frame) => Ok(Some(frame)),
        Err(error) => {
            tracing::warn!(error = %error, "a frame that cannot be read is passed over");
            Ok(None)
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
    talk: &Mutex<Talk>,
) -> anyhow::Result<()> {
    while let Some(message) = reader.next().await {
        let frame = frame(message)?;
        let now = Instant::now();
        let mut talk = lock(talk);
        match frame {
            None => talk.sign(now),
            Some(frame) => executions.act(talk.hear(frame, executions, now)?),
        }
    }
    Ok(())
}

async fn send(
    writer: &mut SplitSink<Socket, Message>,
    executions: &Arc<Executions>,
    talk: &Mutex<Talk>,
) -> anyhow::Result<()> {
    loop {
        flush(writer, executions, talk).await?;
        let flushed = Instant::now();
        let beat = lock(talk).next_beat();
        tokio::select! {
            () = executions.wake.notified() => tokio::time::sleep_until(flushed + GATHER).await,
            () = tokio::time::sleep_until(beat) => {}
        }
    }
}

/// Everything there is to send by now.
async fn flush(
    writer: &mut SplitSink<Socket, Message>,
    executions: &Arc<Executions>,
    talk: &Mutex<Talk>,
) -> anyhow::Result<()> {
    loop {
        let next = lock(talk).next(executions, Instant::now());
        let Some(frame) = next else { return Ok(()) };
        write(writer, &frame).await?;
        if matches!(frame, FromWorker::Heartbeat(_)) {
            // Answered by whatever reads the socket at the other end: shows a dead link.
            put(writer, Message::Ping(Vec::new().into())).await?;
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
