//! The events nobody has acknowledged yet, in order, in a file of one JSON object a line.
//! It never forgets a line that was not acknowledged. What the file cannot take (a full disk) waits in memory.
//! Set-up commands, being root, can spoil the file: a line that is not the one that was written is told as lost.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::{
    event::{Event, EventLine},
    limits::MAX_JOURNAL_BYTES,
};

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
    /// Position of the first line that is not acknowledged, its number, and what is known of the lines from there on.
    start: u64,
    first_seq: u64,
    lines: VecDeque<Known>,
    /// Keyed by chance, so that nobody can write another line with the same mark.
    marks: RandomState,
}

/// What is kept in memory of a line.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// With its newline.
    length: u32,
    mark: u32,
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
        Ok(Self::on(path.to_owned(), open(path)?))
    }

    /// One that keeps everything in memory: for the few words of a sidecar that has no place for a file.
    pub(crate) fn in_memory() -> io::Result<Self> {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self::on(path, file))
    }

    fn on(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            base: 0,
            stored: 0,
            waiting: Vec::new(),
            start: 0,
            first_seq: 1,
            lines: VecDeque::new(),
            marks: RandomState::new(),
        }
    }

    /// The number of the newest line; 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq + self.lines.len() as u64 - 1
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
        let at = self.waiting.len();
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        self.know(at);
        self.store();
    }

    /// Takes note of the line that waits from `at` on.
    fn know(&mut self, at: usize) {
        let line = &self.waiting[at..];
        let length = u32::try_from(line.len()).expect("a line is shorter than 4 GiB");
        self.lines.push_back(Known { length, mark: self.mark(line) });
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of a hash tells as well")]
    fn mark(&self, line: &[u8]) -> u32 {
        self.marks.hash_one(line) as u32
    }

    /// Tries again to put into the file what waits in memory. Half-written lines behind `stored` are
    /// overwritten by the next try.
    pub(crate) fn store(&mut self) {
        if self.file.write_all_at(&self.waiting, self.stored).is_ok() {
            self.stored += self.waiting.len() as u64;
            self.waiting.clear();
        } else {
            let _ = self.file.set_len(self.stored);
        }
    }

    /// As if the disk had taken nothing of a line of `bytes`.
    #[cfg(test)]
    pub(crate) fn wait_in_memory(&mut self, bytes: u32) {
        let at = self.waiting.len();
        self.waiting.resize(at + bytes as usize - 1, b'x');
        self.waiting.push(b'\n');
        self.know(at);
    }

    /// Forgets everything up to `seq`; a number that was never given forgets nothing more.
    pub(crate) fn ack(&mut self, seq: u64) {
        while self.first_seq <= seq
            && let Some(line) = self.lines.pop_front()
        {
            self.start += u64::from(line.length);
            self.first_seq += 1;
        }
        let behind = self.start.saturating_sub(self.base);
        if behind > 0 && behind >= self.stored {
            // All of the file, and maybe of what waits: a full disk gets its room back, and so does memory.
            let gone = usize::try_from(behind - self.stored).unwrap_or(usize::MAX);
            self.waiting.drain(..gone.min(self.waiting.len()));
            (self.base, self.stored) = (self.start, 0);
            let _ = self.file.set_len(0);
            return;
        }
        // Best effort: a file that stays long is only long.
        if behind >= COMPACT_AT_BYTES && behind >= self.stored / 2 {
            let path = self.path.with_extension("new");
            let _ = fs::remove_file(&path);
            if self.compact(behind, &path).is_err() {
                // Of a full disk it would take the last room.
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn compact(&mut self, behind: u64, path: &Path) -> io::Result<()> {
        let new = open(path)?;
        let mut chunk = vec![0; 256 << 10];
        let mut at = behind;
        while at < self.stored {
            let want = usize::try_from(self.stored - at).unwrap_or(usize::MAX).min(chunk.len());
            self.file.read_exact_at(&mut chunk[..want], at)?;
            new.write_all_at(&chunk[..want], at - behind)?;
            at += want as u64;
        }
        // By renaming: whoever reads the file after our end finds one or the other, whole.
        fs::rename(path, &self.path)?;
        self.file = new;
        self.base += behind;
        self.stored -= behind;
        Ok(())
    }

    /// A cursor behind `seq`, or behind what is acknowledged, if that is more.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        let seq = seq.clamp(self.acked(), self.last_seq());
        let skipped = usize::try_from(seq - self.acked()).unwrap_or(usize::MAX);
        let bytes: u64 = self.lines.iter().take(skipped).map(|line| u64::from(line.length)).sum();
        Cursor { seq: seq + 1, position: self.start + bytes }
    }

    /// Whole lines from `cursor` on, which moves behind them; empty at the end.
    pub(crate) fn read(&self, cursor: &mut Cursor) -> Vec<u8> {
        if cursor.seq < self.first_seq {
            *cursor = self.cursor(0);
        }
        let skipped = usize::try_from(cursor.seq - self.first_seq).unwrap_or(usize::MAX);
        let (mut bytes, mut lines) = (0, 0);
        for line in self.lines.iter().skip(skipped) {
            if lines > 0 && bytes + u64::from(line.length) > BATCH_BYTES {
                break;
            }
            bytes += u64::from(line.length);
            lines += 1;
        }
        let mut batch = vec![0; usize::try_from(bytes).unwrap_or_default()];
        let at = cursor.position - self.base;
        let in_file = bytes.min(self.stored.saturating_sub(at));
        let (stored, waiting) = batch.split_at_mut(usize::try_from(in_file).unwrap_or_default());
        // What cannot be read stays zero, which is none of our lines.
        let _ = self.file.read_exact_at(stored, at);
        let from = usize::try_from(at.saturating_sub(self.stored)).unwrap_or_default();
        waiting.copy_from_slice(&self.waiting[from..from + waiting.len()]);
        let first = cursor.seq;
        cursor.seq += lines;
        cursor.position += bytes;
        self.whole(batch, skipped, first)
    }

    /// `batch` with a word in place of each line that is not the one that was written; a number missing, or
    /// something that is no event, would stop the link for good.
    fn whole(&self, batch: Vec<u8>, skipped: usize, first: u64) -> Vec<u8> {
        let mut lines = Vec::new();
        let mut rest = &batch[..];
        for known in self.lines.iter().skip(skipped) {
            let Some((line, behind)) = rest.split_at_checked(known.length as usize) else { break };
            lines.push((line, self.mark(line) == known.mark));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        if lines.iter().all(|(_, sound)| *sound) {
            return batch;
        }
        let told = |(seq, (line, sound)): (u64, (&[u8], bool))| {
            if sound {
                return line.to_vec();
            }
            let text =
                "an event was lost: something in the container spoiled the journal".to_owned();
            let event = EventLine::new(seq, 0, &Event::Notice { text });
            let line = serde_json::to_string(&event).expect("an event line is plain data");
            format!("{line}\n").into_bytes()
        };
        (first..).zip(lines).flat_map(told).collect()
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
        String::from_utf8(journal.read(cursor)).unwrap()
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
    fn acknowledging_makes_room_whatever_the_disk_does() {
        let (_folder, mut journal) = journal();
        journal.append("in the file");
        journal.file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let line = "x".repeat(MAX_WAITING_BYTES / 2);
        for _ in 0..2 {
            journal.append(&line);
        }
        assert!(journal.full());
        journal.ack(2);
        assert!(!journal.full());
        let mut cursor = journal.cursor(2);
        assert_eq!(read(&journal, &mut cursor).len(), line.len() + 1);
        journal.append("end");
        assert_eq!(read(&journal, &mut cursor), "end\n");
    }

    #[test]
    fn a_spoiled_file_loses_what_was_in_it_and_says_so() {
        let (folder, mut journal) = journal();
        for line in ["one", "two", "three"] {
            journal.append(line);
        }
        OpenOptions::new()
            .write(true)
            .open(folder.path().join("journal.jsonl"))
            .unwrap()
            .set_len(6)
            .unwrap();
        journal.append("four");
        let text = read(&journal, &mut journal.cursor(0));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[3]), (4, "one", "four"));
        for (line, seq) in lines[1..3].iter().zip(2..) {
            let event: EventLine = serde_json::from_str(line).unwrap();
            assert_eq!((event.seq, event.kind.as_str()), (seq, "notice"));
        }
    }

    #[test]
    fn a_line_written_over_is_told_as_lost_though_it_looks_like_one() {
        let (folder, mut journal) = journal();
        journal.append(r#"{"seq":1,"at_ms":0,"kind":"text","data":{"text":"a"}}"#);
        journal.append("two");
        let path = folder.path().join("journal.jsonl");
        let forged = fs::read_to_string(&path).unwrap().replace(r#""a""#, r#""b""#);
        fs::write(&path, forged).unwrap();
        let text = read(&journal, &mut journal.cursor(0));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1..], ["two"]);
        let event: EventLine = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((event.seq, event.kind.as_str()), (1, "notice"));
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
