//! One connection, from hello to its end.
//!
//! Standard input and output cannot be dialled again, and who is at their other end may change unseen. So a
//! `resume` in the middle begins anew: a hello, then everything from there on. It needs no key, because
//! nobody but this process holds those descriptors; its children have pipes of their own.

use std::{io, sync::Arc};

use harness::lines::{LineReader, Piece};
use protocol::{
    limits::MAX_FRAME_BYTES,
    secret::Secret,
    sidecar::{Cancel, FromSidecar, SidecarHello, ToSidecar},
    spec::RunSpec,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
};

use crate::{journal::Cursor, record::Recorder};

/// What the worker wants.
#[derive(Debug)]
pub(crate) enum Command {
    Assign(Box<RunSpec>),
    Cancel(Cancel),
    Message,
}

/// Everything that outlives a connection.
pub(crate) struct Session {
    recorder: Arc<Recorder>,
    commands: mpsc::Sender<Command>,
    /// Given with the assignment; no later hello goes without.
    key: Option<Secret>,
}

impl Session {
    pub(crate) fn new(recorder: Arc<Recorder>, commands: mpsc::Sender<Command>) -> Self {
        Self { recorder, commands, key: None }
    }

    pub(crate) async fn run(
        &mut self,
        input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        self.hello(&mut output).await?;
        // An assignment is as long as a frame of the worker's own link, and our envelope around it.
        let mut input = LineReader::new(input, MAX_FRAME_BYTES + 4096);
        let cursor = loop {
            match command(&mut input).await? {
                ToSidecar::Assign(assign) if self.key.is_none() => {
                    self.key = Some(assign.key);
                    self.hand_on(Command::Assign(Box::new(assign.spec))).await;
                    break self.recorder.cursor(0);
                }
                ToSidecar::Resume(at) if self.key.is_some() => break self.recorder.cursor(at.seq),
                // Attached to anew before the assignment: it is asked for again.
                ToSidecar::Resume(_) => self.hello(&mut output).await?,
                other => crate::say::say(&format!("{:?} before an assignment", other.kind())),
            }
        };
        let anew = watch::Sender::new(0);
        tokio::select! {
            ended = self.listen(&mut input, &anew) => ended,
            ended = self.send(cursor, anew.subscribe(), &mut output) => ended,
        }
    }

    async fn hello(&self, output: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let hello = FromSidecar::Hello(SidecarHello {
            key: self.key.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            last_seq: self.recorder.last_seq(),
        });
        output.write_all(format!("{}\n", hello.to_json()).as_bytes()).await?;
        output.flush().await
    }

    /// Numbers to begin anew behind go to `anew`.
    async fn listen(
        &self,
        input: &mut LineReader<impl AsyncRead + Unpin>,
        anew: &watch::Sender<u64>,
    ) -> io::Result<()> {
        loop {
            match command(input).await? {
                ToSidecar::Ack(at) => self.recorder.ack(at.seq),
                ToSidecar::Cancel(cancel) => self.hand_on(Command::Cancel(cancel)).await,
                ToSidecar::Message(_) => self.hand_on(Command::Message).await,
                ToSidecar::Resume(at) => {
                    anew.send_replace(at.seq);
                }
                other => crate::say::say(&format!("{:?} is not for now", other.kind())),
            }
        }
    }

    /// Sends everything behind `cursor`, and what is added, until the link breaks. Begins anew only between
    /// lines, never within one.
    async fn send(
        &self,
        mut cursor: Cursor,
        mut anew: watch::Receiver<u64>,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            let batch = tokio::select! {
                biased; // a late reader first learns where it is
                Ok(()) = anew.changed() => {
                    cursor = self.recorder.cursor(*anew.borrow_and_update());
                    self.hello(output).await?;
                    continue;
                }
                batch = self.recorder.next(&mut cursor) => batch,
            };
            let mut framed = Vec::with_capacity(batch.len() + 1024);
            for line in batch.split_inclusive(|byte| *byte == b'\n') {
                // The journal's lines are the events themselves; only the envelope is missing.
                framed.extend_from_slice(br#"{"type":"event","data":"#);
                framed.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                framed.extend_from_slice(b"}\n");
            }
            output.write_all(&framed).await?;
            output.flush().await?;
        }
    }

    async fn hand_on(&self, command: Command) {
        // After the exit event nobody takes commands any more.
        let _ = self.commands.send(command).await;
    }
}

/// The next line that is a message; a line that is none is said and passed over.
async fn command(input: &mut LineReader<impl AsyncRead + Unpin>) -> io::Result<ToSidecar> {
    loop {
        let line = match input.next().await? {
            Some(Piece::Line(line)) => line,
            Some(Piece::Part(_)) => return Err(io::Error::other("a line is too long")),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match ToSidecar::parse(&String::from_utf8_lossy(&line)) {
            Ok(message) => return Ok(message),
            Err(error) => crate::say::say(&format!("a line of the worker: {error}")),
        }
    }
}
