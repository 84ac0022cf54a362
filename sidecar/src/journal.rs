//! The events nobody has acknowledged yet, in order, in a file of one JSON object a line.
//! It never forgets a line that was not acknowledged. What the file cannot take (a full disk) waits in memory.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::limits::MAX_JOURNAL_BYTES;

/// Acknowledged bytes the file may begin with before it is written anew without them.
const COMPACT_AT_BYTES: u64 = 4 << 20;

/// Most bytes that wait in memory for a disk that takes none; at the bound the journal counts as full.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// Most bytes read in one batch, unless one line is longer.
const BATCH_BYTES: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Positions count every byte there ever was; the file begins at this one.
    base: u64,
    /// Bytes in the file.
    stored: u64,
    /// Lines behind the file's end.
    waiting: Vec<u8>,
    /// Position of the first line that is not acknowledged, its number, and the lengths from there on.
    start: u64,
    first_seq: u64,
    lengths: VecDeque<u32>,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    seq: u64,
    position: u64,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            base: 0,
            stored: 0,
            waiting: Vec::new(),
            start: 0,
            first_seq: 1,
            lengths: VecDeque::new(),
        })
    }

    /// The number of the newest line; 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq + self.lengths.len() as u64 - 1
    }

    pub(crate) fn acked(&self) -> u64 {
        self.first_seq - 1
    }

    /// Whether whoever can wait should.
    pub(crate) fn full(&self) -> bool {
        let end = self.base + self.stored + self.waiting.len() as u64;
        end - self.start >= MAX_JOURNAL_BYTES || self.waiting.len() >= MAX_WAITING_BYTES
    }

    /// Adds the line with the next number; `line` has no newline in it.
    pub(crate) fn append(&mut self, line: &str) {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        let length = u32::try_from(line.len() + 1).expect("a line is shorter than 4 GiB");
        self.lengths.push_back(length);
        self.store();
    }

    /// Half-written lines behind `stored` are overwritten by the next try.
    fn store(&mut self) {
        if self.file.write_all_at(&self.waiting, self.stored).is_ok() {
            self.stored += self.waiting.len() as u64;
            self.waiting.clear();
        } else {
            let _ = self.file.set_len(self.stored);
        }
    }

    /// Forgets everything up to `seq`; a number that was never given forgets nothing more.
    pub(crate) fn ack(&mut self, seq: u64) {
        while self.first_seq <= seq
            && let Some(length) = self.lengths.pop_front()
        {
            self.start += u64::from(length);
            self.first_seq += 1;
        }
        let behind = self.start.saturating_sub(self.base);
        // Best effort: a file that stays long is only long.
        if behind >= COMPACT_AT_BYTES && behind >= self.stored / 2 && behind <= self.stored {
            let _ = self.compact(behind);
        }
    }

    fn compact(&mut self, behind: u64) -> io::Result<()> {
        let path = self.path.with_extension("new");
        let _ = fs::remove_file(&path);
        let new = open(&path)?;
        let mut chunk = vec![0; 256 << 10];
        let mut at = behind;
        while at < self.stored {
            let want = usize::try_from(self.stored - at).unwrap_or(usize::MAX).min(chunk.len());
            self.file.read_exact_at(&mut chunk[..want], at)?;
            new.write_all_at(&chunk[..want], at - behind)?;
            at += want as u64;
        }
        // By renaming: whoever reads the file after our end finds one or the other, whole.
        fs::rename(&path, &self.path)?;
        self.file = new;
        self.base += behind;
        self.stored -= behind;
        Ok(())
    }

    /// A cursor behind `seq`, or behind what is acknowledged, if that is more.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        let seq = seq.clamp(self.acked(), self.last_seq());
        let skipped = usize::try_from(seq - self.acked()).unwrap_or(usize::MAX);
        let bytes: u64 = self.lengths.iter().take(skipped).map(|length| u64::from(*length)).sum();
        Cursor { seq: seq + 1, position: self.start + bytes }
    }

    /// Whole lines from `cursor` on, which moves behind them; empty at the end.
    pub(crate) fn read(&self, cursor: &mut Cursor) -> io::Result<Vec<u8>> {
        if cursor.seq < self.first_seq {
            *cursor = self.cursor(0);
        }
        let skipped = usize::try_from(cursor.seq - self.first_seq).unwrap_or(usize::MAX);
        let (mut bytes, mut lines) = (0, 0);
        for length in self.lengths.iter().skip(skipped) {
            if lines > 0 && bytes + u64::from(*length) > BATCH_BYTES {
                break;
            }
            bytes += u64::from(*length);
            lines += 1;
        }
        let mut batch = vec![0; usize::try_from(bytes).unwrap_or_default()];
        let at = cursor.position - self.base;
        let in_file = bytes.min(self.stored.saturating_sub(at));
        let (stored, waiting) = batch.split_at_mut(usize::try_from(in_file).unwrap_or_default());
        self.file.read_exact_at(stored, at)?;
        let from = usize::try_from(at.saturating_sub(self.stored)).unwrap_or_default();
        waiting.copy_from_slice(&self.waiting[from..from + waiting.len()]);
        cursor.seq += lines;
        cursor.position += bytes;
        Ok(batch)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(&folder.path().join("journal.jsonl")).unwrap();
        (folder, journal)
    }

    fn read(journal: &Journal, cursor: &mut Cursor) -> String {
        String::from_utf8(journal.read(cursor).unwrap()).unwrap()
    }

    #[test]
    fn a_reader_begins_where_it_says_and_forgets_nothing_unacknowledged() {
        let (_folder, mut journal) = journal();
        for line in ["one", "two", "three"] {
            journal.append(line);
        }
        journal.ack(1);
        assert_eq!((journal.acked(), journal.last_seq()), (1, 3));
        let mut cursor = journal.cursor(0);
        assert_eq!(read(&journal, &mut cursor), "two\nthree\n");
        journal.append("four");
        assert_eq!(read(&journal, &mut cursor), "four\n");
        assert_eq!(read(&journal, &mut cursor), "");
        assert_eq!(read(&journal, &mut journal.cursor(3)), "four\n");
        journal.ack(99);
        assert_eq!((journal.acked(), journal.last_seq()), (4, 4));
        journal.append("five");
        assert_eq!(read(&journal, &mut journal.cursor(99)), "");
        assert_eq!(read(&journal, &mut journal.cursor(4)), "five\n");
    }

    #[test]
    fn what_is_acknowledged_leaves_the_file() {
        let (folder, mut journal) = journal();
        let line = "x".repeat(1023);
        for _ in 0..10_000 {
            journal.append(&line);
        }
        let mut cursor = journal.cursor(9_000);
        journal.ack(9_998);
        let size = fs::metadata(folder.path().join("journal.jsonl")).unwrap().len();
        assert_eq!(size, 2 * 1024);
        // A reader behind what was acknowledged goes on with what is left.
        assert_eq!(read(&journal, &mut cursor).len(), 2 * 1024);
        journal.append("end");
        assert_eq!(read(&journal, &mut cursor), "end\n");
    }

    #[test]
    fn at_the_bound_it_is_full_until_acknowledged() {
        let (_folder, mut journal) = journal();
        let line = "x".repeat((1 << 20) - 1);
        for _ in 0..64 {
            assert!(!journal.full());
            journal.append(&line);
        }
        assert!(journal.full());
        journal.ack(1);
        assert!(!journal.full());
    }

    #[test]
    fn what_a_full_disk_does_not_take_waits_in_memory() {
        let (_folder, mut journal) = journal();
        journal.append("one");
        journal.file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        journal.append("two");
        assert_eq!(journal.waiting, b"two\n");
        let mut cursor = journal.cursor(1);
        assert_eq!(read(&journal, &mut cursor), "two\n");
    }
}
