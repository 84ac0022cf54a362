//! The worker's own events of one execution, noted in its folder before they are sent: a life that ends without
//! a word loses none, and the next one numbers on from them. Not flushed to the disk itself: a machine that
//! loses its power loses its containers too.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use protocol::event::EventLine;

/// Most bytes of one execution's notes. Progress, which is for people, is said no more from half of it on; what
/// is said beyond the bound is not noted, and a killed worker may lose it.
const MAX_BYTES: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Notes {
    file: File,
    bytes: u64,
    /// A line is missing: what comes after it would be numbered wrongly by whoever reads this.
    broken: bool,
}

impl Notes {
    /// Opens `path`, made if it is not there, and reads what an earlier life noted: whole lines whose numbers
    /// follow each other from 1. What stands behind them is cut off.
    ///
    /// # Errors
    /// The file cannot be had.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<EventLine>)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path)?;
        let mut text = Vec::new();
        Read::by_ref(&mut file).take(2 * MAX_BYTES).read_to_end(&mut text)?;
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let event = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok());
            let Some(event): Option<EventLine> = event else { break };
            if event.seq != lines.len() as u64 + 1 {
                break;
            }
            bytes += line.len() as u64;
            lines.push(event);
        }
        file.set_len(bytes)?;
        Ok((Self { file, bytes, broken: false }, lines))
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.bytes > MAX_BYTES / 2
    }

    pub(super) fn note(&mut self, line: &EventLine) {
        if self.broken {
            return;
        }
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        let fits = self.bytes + text.len() as u64 <= MAX_BYTES;
        if fits && self.file.write_all(&text).is_ok() {
            self.bytes += text.len() as u64;
            return;
        }
        self.broken = true;
        // Half a line is cut off by whoever reads it.
        tracing::warn!("the worker's events are noted no more; a restart now would lose some");
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::Event;

    use super::*;

    fn line(seq: u64) -> EventLine {
        EventLine::new(seq, 7, &Event::Notice { text: "said".to_owned() })
    }

    fn seqs(lines: &[EventLine]) -> Vec<u64> {
        lines.iter().map(|line| line.seq).collect()
    }

    #[test]
    fn what_was_noted_is_read_and_half_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said.jsonl");
        let (mut notes, lines) = Notes::open(&path).unwrap();
        assert!(lines.is_empty());
        notes.note(&line(1));
        notes.note(&line(2));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":3,").unwrap();

        let (mut notes, lines) = Notes::open(&path).unwrap();
        assert_eq!(seqs(&lines), [1, 2]);
        notes.note(&line(3));
        notes.note(&line(5));
        assert_eq!(seqs(&Notes::open(&path).unwrap().1), [1, 2, 3]);
    }

    #[test]
    fn at_the_bound_the_beginning_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said.jsonl");
        let (mut notes, _) = Notes::open(&path).unwrap();
        let text = "x".repeat(100 << 10);
        for seq in 1..=4 {
            notes.note(&EventLine::new(seq, 0, &Event::Notice { text: text.clone() }));
        }
        assert!(notes.is_half_full());
        assert_eq!(seqs(&Notes::open(&path).unwrap().1), [1, 2]);
    }
}
