//! One connection of a sidecar: hello, then numbered events in, acknowledgements and orders out.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use protocol::{
    event::{Event, EventLine},
    limits::{MAX_EVENTS, MAX_OUTPUT_BYTES, MAX_SIDECAR_LINE_BYTES},
    sidecar::{Assign, FromSidecar, Seq, SidecarHello, ToSidecar},
};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncBufRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::shared::{Contact, Shared};
use crate::{backend::Attached, lines::next_line, output::Pushed, sync::lock};

/// Until the first line.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Until the hello of a container that was attached to: it may not have started yet, or may have much on its
/// way that was meant for an earlier worker.
const ATTACHED_HELLO_WITHIN: Duration = Duration::from_secs(30);

/// Nothing heard for this long on an attached container: it is attached to anew, should the engine have
/// forgotten this one.
const ATTACHED_SILENCE: Duration = Duration::from_mins(1);

/// For one line out; a sidecar that reads nothing for this long is dialled anew by itself.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// Kinds of events that only others may say; a sidecar that says them is none of ours.
const NOT_A_SIDECARS: [&str; 2] = ["state", "image_progress"];

/// Lines and bytes of one execution after which its container is ended. A sidecar of ours stays far below: it
/// bounds events and output itself, and JSON makes no text more than six times as long.
const MOST_LINES: u64 = 2 * MAX_EVENTS;
const MOST_BYTES: u64 = 8 * MAX_OUTPUT_BYTES;

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The sidecar dialled.
    Dialled,
    /// Attached to before it started: it knows of nobody else.
    First,
    /// Attached to in the middle of whatever it was saying.
    Again,
}

pub(super) async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let (reader, writer) = stream.into_split();
    let reader = BufReader::with_capacity(64 << 10, reader);
    if let Err(error) = talk(reader, writer, Way::Dialled, &shared).await {
        tracing::warn!(
            execution.id = %shared.held.execution_id,
            error = format!("{error:#}"),
            "a sidecar's connection ended"
        );
    }
}

/// Until either side lets go.
pub(super) async fn serve_attached(
    attached: Attached,
    first: bool,
    shared: &Shared,
) -> anyhow::Result<()> {
    let way = if first { Way::First } else { Way::Again };
    talk(attached.output, attached.input, way, shared).await
}

pub(super) async fn talk(
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    way: Way,
    shared: &Shared,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    if way == Way::Again {
        // Ends what an earlier worker may have written half of.
        writer.write_all(b"\n").await?;
        let seq = shared.held.outbox.sidecar_received();
        write(&mut writer, &ToSidecar::Resume(Seq { seq })).await?;
    }
    let hello = match way {
        Way::Dialled => tokio::time::timeout(HELLO_WITHIN, hello(&mut reader, &mut line)).await,
        Way::First | Way::Again => {
            let hello = hello_among(&mut reader, &mut line, shared);
            tokio::time::timeout(ATTACHED_HELLO_WITHIN, hello).await
        }
    };
    let hello = hello.context("no hello")??;
    let answer = match admit(&hello, shared)? {
        // It was told already.
        ToSidecar::Resume(_) if way != Way::Dialled => None,
        answer => Some(answer),
    };
    shared.held.container_ended(true);

    // From here on it is the sidecar; an older connection of its ends.
    let mut newest = shared.newest.subscribe();
    let mut mine = 0;
    shared.newest.send_modify(|newest| {
        *newest += 1;
        mine = *newest;
    });
    shared.contact.send_modify(|contact| *contact = Contact { ever: true, now: true, ..*contact });
    tracing::debug!(execution.id = %shared.held.execution_id, version = hello.version, "sidecar connected");

    let ended = tokio::select! {
        ended = receive(&mut reader, &mut line, way, shared) => ended,
        error = send_or_wait(&mut writer, answer, way, shared) => Err(error),
        _ = newest.wait_for(|newest| *newest != mine) => Ok(()),
    };
    let last = *shared.newest.borrow() == mine;
    shared.contact.send_modify(|contact| contact.now &= !last);
    ended
}

async fn hello(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> anyhow::Result<SidecarHello> {
    match read(reader, line).await? {
        Some(FromSidecar::Hello(hello)) => Ok(hello),
        _ => bail!("the first line is not a hello"),
    }
}

/// The next hello among lines that were for somebody else; the first may be half a line.
async fn hello_among(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    shared: &Shared,
) -> anyhow::Result<SidecarHello> {
    while next_line(reader, line, MAX_SIDECAR_LINE_BYTES).await? {
        count(line, shared)?;
        let text = std::str::from_utf8(line).unwrap_or_default();
        if let Ok(FromSidecar::Hello(hello)) = FromSidecar::parse(text) {
            return Ok(hello);
        }
    }
    bail!("it ended without a hello")
}

/// What to answer a hello with.
fn admit(hello: &SidecarHello, shared: &Shared) -> anyhow::Result<ToSidecar> {
    if let Some(key) = &hello.key {
        let same = key.expose().as_bytes().ct_eq(shared.key.expose().as_bytes());
        ensure!(bool::from(same), "a hello with a wrong key");
        lock(&shared.assignment).take();
        return Ok(ToSidecar::Resume(Seq { seq: shared.held.outbox.sidecar_received() }));
    }
    // Nothing but the sidecar runs in there before it has its assignment; afterwards the key is asked for.
    if let Some(spec) = &*lock(&shared.assignment) {
        let (key, spec) = (shared.key.clone(), (**spec).clone());
        return Ok(ToSidecar::Assign(Box::new(Assign { key, spec })));
    }
    if shared.held.outbox.sidecar_received() == 0 {
        shared.contact.send_modify(|contact| contact.stranded = true);
    }
    bail!("a hello without a key, after the assignment was handed out")
}

/// Counts a line against what a run may say.
fn count(line: &[u8], shared: &Shared) -> anyhow::Result<()> {
    let length = line.len() as u64;
    let bytes = shared.bytes.fetch_add(length, Ordering::Relaxed) + length;
    if bytes > MOST_BYTES || shared.held.outbox.sidecar_received() > MOST_LINES {
        shared.contact.send_modify(|contact| contact.flooding = true);
        bail!("more than a run may say");
    }
    Ok(())
}

async fn receive(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    way: Way,
    shared: &Shared,
) -> anyhow::Result<()> {
    loop {
        let message = match way {
            Way::Dialled => read(reader, line).await?,
            Way::First | Way::Again => {
                let heard = tokio::time::timeout(ATTACHED_SILENCE, read(reader, line)).await;
                heard.context("nothing heard")??
            }
        };
        count(line, shared)?;
        match message {
            None => return Ok(()),
            Some(FromSidecar::Event(event)) => take(event, shared).await?,
            Some(FromSidecar::Hello(_)) if way == Way::Dialled => bail!("a second hello"),
            // The answer to an earlier worker; what follows it is known by its numbers.
            Some(FromSidecar::Hello(_)) => {}
            Some(FromSidecar::Unknown(kind)) => {
                tracing::debug!(kind, "a line of a newer sidecar is passed over");
            }
        }
    }
}

async fn take(event: EventLine, shared: &Shared) -> anyhow::Result<()> {
    ensure!(
        !NOT_A_SIDECARS.contains(&event.kind.as_str()),
        "a {:?} event, which is not a sidecar's to say",
        event.kind
    );
    // Its first event shows that it has its assignment.
    lock(&shared.assignment).take();
    let seq = event.seq;
    let exit = match event.kind.as_str() {
        "exit" => match event.event() {
            Some(Event::Exit(exit)) => Some(exit),
            _ => bail!("an exit event of another form"),
        },
        _ => None,
    };
    if let Some(exit) = &exit
        && seq == shared.held.outbox.sidecar_received() + 1
    {
        // On disk before anybody can acknowledge it.
        shared.save(exit);
    }
    match shared.held.outbox.forward(event).await {
        Pushed::Gap => bail!("event {seq} came too early"),
        Pushed::Known => {}
        Pushed::Taken => {
            if let Some(exit) = exit {
                shared.exit.send_replace(Some(exit));
            }
        }
    }
    Ok(())
}

/// A sidecar that died can be written to no more, but what it had said is still to be read. One that was
/// attached to is attached to again: its journal has what is lost here.
async fn send_or_wait(
    writer: &mut (impl AsyncWrite + Unpin),
    answer: Option<ToSidecar>,
    way: Way,
    shared: &Shared,
) -> anyhow::Error {
    let Err(error) = send(writer, answer, shared).await;
    if way != Way::Dialled {
        return error;
    }
    tracing::debug!(execution.id = %shared.held.execution_id, error = format!("{error:#}"), "nothing more can be said to the sidecar");
    std::future::pending().await
}

async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    answer: Option<ToSidecar>,
    shared: &Shared,
) -> anyhow::Result<Infallible> {
    let mut acked = shared.held.outbox.sidecar_acked();
    let mut cancel = shared.cancel.subscribe();
    // What was said on an earlier connection may not have arrived.
    cancel.mark_changed();
    if *acked.borrow() > 0 {
        acked.mark_changed();
    }
    if let Some(answer) = answer {
        write(writer, &answer).await?;
    }
    loop {
        tokio::select! {
            changed = acked.changed() => {
                changed.context("the outbox is gone")?;
                let seq = *acked.borrow_and_update();
                write(writer, &ToSidecar::Ack(Seq { seq })).await?;
            }
            changed = cancel.changed() => {
                changed.context("the link is gone")?;
                let order = *cancel.borrow_and_update();
                if let Some(order) = order {
                    write(writer, &ToSidecar::Cancel(order)).await?;
                }
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), message: &ToSidecar) -> anyhow::Result<()> {
    let mut text = message.to_json();
    text.push('\n');
    let written = async {
        writer.write_all(text.as_bytes()).await?;
        writer.flush().await
    };
    tokio::time::timeout(WRITE_WITHIN, written)
        .await
        .context("the sidecar does not read")?
        .context("write to the sidecar")
}

/// One line; `None` at the end.
async fn read(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> anyhow::Result<Option<FromSidecar>> {
    if !next_line(reader, line, MAX_SIDECAR_LINE_BYTES).await? {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).context("a line is not UTF-8")?;
    // The line itself may hold anything and is not shown.
    FromSidecar::parse(text).map(Some).context("understand a line")
}
