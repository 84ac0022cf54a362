//! Bytes cut at newlines, with a bound: a longer line comes in parts. Nothing is lost when a read is given up.

use tokio::io::{AsyncRead, AsyncReadExt};

/// A line without its newline, or as much of one as the bound allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The end of a line, or a whole one. The last may have ended without a newline.
    Line(Vec<u8>),
    /// The line goes on in the next piece. Never cut inside a UTF-8 character.
    Part(Vec<u8>),
}

/// Cuts what is pushed into lines of at most `max` bytes a piece.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the next piece begins; what stands before is taken already.
    start: usize,
    /// Everything before holds no newline.
    searched: usize,
    max: usize,
}

impl Lines {
    /// `max` is at least 4, the longest character.
    pub fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, max: max.max(4) }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece that is complete.
    pub fn pop(&mut self) -> Option<Piece> {
        let window = self.buffer.len().min(self.start + self.max + 1);
        let newline = self.buffer[self.searched..window].iter().position(|byte| *byte == b'\n');
        if let Some(offset) = newline {
            let end = self.searched + offset;
            let line = self.buffer[self.start..end].to_vec();
            self.start = end + 1;
            self.searched = self.start;
            return Some(Piece::Line(line));
        }
        self.searched = window;
        if self.buffer.len() - self.start <= self.max {
            return None;
        }
        let end = self.start + boundary(&self.buffer[self.start..], self.max);
        let part = self.buffer[self.start..end].to_vec();
        self.start = end;
        self.searched = self.searched.max(end);
        Some(Piece::Part(part))
    }

    /// What is left when nothing more comes.
    pub fn rest(&mut self) -> Option<Piece> {
        let rest = self.buffer.split_off(self.start);
        self.buffer.clear();
        (self.start, self.searched) = (0, 0);
        (!rest.is_empty()).then_some(Piece::Line(rest))
    }
}

/// The last place at or before `max` that does not cut a character. Bytes that are no UTF-8 are cut at `max`.
fn boundary(bytes: &[u8], max: usize) -> usize {
    let continues = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    (max - 3..=max).rev().find(|at| !continues(*at)).unwrap_or(max)
}

/// [`Lines`] of something that is read.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    lines: Lines,
    chunk: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub fn new(source: R, max: usize) -> Self {
        Self { source, lines: Lines::new(max), chunk: vec![0; 32 << 10], ended: false }
    }

    /// What was read of a line that has no end yet.
    pub fn rest(&mut self) -> Option<Piece> {
        self.lines.rest()
    }

    /// The next piece; `None` at the end. Safe to give up in a `select!`.
    ///
    /// # Errors
    /// The source cannot be read.
    pub async fn next(&mut self) -> std::io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.lines.pop() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(self.lines.rest());
            }
            let count = self.source.read(&mut self.chunk).await?;
            self.ended = count == 0;
            self.lines.push(&self.chunk[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<Piece> {
        let mut pieces: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        pieces.extend(lines.rest());
        pieces
    }

    #[test]
    fn bytes_are_cut_at_newlines() {
        let mut lines = Lines::new(100);
        lines.push(b"a\n\nb");
        assert_eq!(lines.pop(), Some(Piece::Line(b"a".to_vec())));
        assert_eq!(lines.pop(), Some(Piece::Line(vec![])));
        assert_eq!(lines.pop(), None);
        lines.push(b"c\nd");
        assert_eq!(all(&mut lines), [Piece::Line(b"bc".to_vec()), Piece::Line(b"d".to_vec())]);
    }

    #[test]
    fn a_long_line_comes_in_parts_between_characters() {
        let mut lines = Lines::new(8);
        lines.push("aéééééé\n".as_bytes());
        assert_eq!(
            all(&mut lines),
            [Piece::Part("aééé".as_bytes().to_vec()), Piece::Line("ééé".as_bytes().to_vec())]
        );
        lines.push(&[0x80; 10]);
        assert_eq!(all(&mut lines), [Piece::Part(vec![0x80; 8]), Piece::Line(vec![0x80; 2])]);
    }

    #[test]
    fn a_line_as_long_as_the_bound_is_whole() {
        let mut lines = Lines::new(8);
        lines.push(b"12345678\n123456789\n");
        assert_eq!(
            all(&mut lines),
            [
                Piece::Line(b"12345678".to_vec()),
                Piece::Part(b"12345678".to_vec()),
                Piece::Line(b"9".to_vec())
            ]
        );
    }
}
