//! One connection, from hello to its end.

use std::io;

use harness::lines::{LineReader, Piece};
use protocol::{
    limits::MAX_FRAME_BYTES,
    sidecar::{FromSidecar, SidecarHello, ToSidecar},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Command, Link};
use crate::{journal::Cursor, record::Recorder};

impl Link {
    pub(super) async fn session(
        &mut self,
        input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let hello = FromSidecar::Hello(SidecarHello {
            key: self.key.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            last_seq: self.recorder.last_seq(),
        });
        output.write_all(format!("{}\n", hello.to_json()).as_bytes()).await?;
        output.flush().await?;
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
                other => crate::say(&format!("{:?} before an assignment", other.kind())),
            }
        };
        tokio::select! {
            ended = self.listen(&mut input) => ended,
            ended = send(&self.recorder, cursor, &mut output) => ended,
        }
    }

    async fn listen(&self, input: &mut LineReader<impl AsyncRead + Unpin>) -> io::Result<()> {
        loop {
            match command(input).await? {
                ToSidecar::Ack(at) => self.recorder.ack(at.seq),
                ToSidecar::Cancel(cancel) => self.hand_on(Command::Cancel(cancel)).await,
                ToSidecar::Message(_) => self.hand_on(Command::Message).await,
                other => crate::say(&format!("{:?} is not for now", other.kind())),
            }
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
            Err(error) => crate::say(&format!("a line of the worker: {error}")),
        }
    }
}

/// Sends everything behind `cursor`, and what is added, until the link breaks.
async fn send(
    recorder: &Recorder,
    mut cursor: Cursor,
    output: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        let batch = recorder.next(&mut cursor).await?;
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
