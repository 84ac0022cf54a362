//! A model's answer, read from its server-sent events as they come, within bounds.

use crate::{
    agent::{
        conversation::Reply,
        draft::{Draft, broken, too_much},
        wire::Wire,
    },
    failure::Failure,
    lines::{Lines, Piece},
};

/// Longest line of the stream. A longer one ends the answer as a network error.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Most bytes of one answer's stream, whatever is in them. More is a failure.
const MAX_STREAM_BYTES: usize = 64 << 20;

pub(crate) struct Assembly {
    wire: Wire,
    lines: Lines,
    draft: Draft,
    streamed: usize,
}

impl Assembly {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, lines: Lines::new(MAX_LINE_BYTES), draft: Draft::default(), streamed: 0 }
    }

    /// Takes bytes as they come and gives back the text in them; nothing after the stream's own end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        self.streamed = self.streamed.saturating_add(bytes.len());
        if self.streamed > MAX_STREAM_BYTES {
            return Err(too_much());
        }
        self.lines.push(bytes);
        while let Some(piece) = self.lines.pop() {
            let Piece::Line(line) = piece else {
                return Err(broken("a line of its stream is longer than 1 MiB"));
            };
            self.line(&line)?;
        }
        Ok(self.draft.take_text())
    }

    pub(crate) fn done(&self) -> bool {
        self.draft.is_done()
    }

    /// Every dialect puts an event into one `data:` line, and its name into the data.
    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if self.draft.is_done() || data.is_empty() {
            return Ok(());
        }
        self.wire.event(data, &mut self.draft)
    }

    /// The answer, once the stream is over.
    pub(crate) fn finish(self) -> Result<Reply, Failure> {
        self.draft.finish()
    }
}

#[cfg(test)]
mod tests;
