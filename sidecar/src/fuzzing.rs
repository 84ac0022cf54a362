//! The parsers of this part that take bytes from outside, and what must hold of them for every input: for the fuzz
//! targets in `fuzz/`, and for the properties below. In no build that ships.

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    sync::Arc,
};

use protocol::event::{Event, EventLine};
use tokio::sync::mpsc;

use crate::{
    collect::pattern::Pattern,
    journal::Journal,
    link::{Command, session::Session},
    record::Recorder,
};

/// A worker, or whoever holds its end, says anything: the session ends with the input, hands out one assignment at
/// most, and forgets nothing that was not there.
pub fn worker_says(bytes: &[u8]) {
    const EVENTS: u64 = 3;
    let recorder = Arc::new(Recorder::new(Journal::in_memory().expect("memory is there")));
    for text in ["one", "two", "three"] {
        recorder.note(&Event::Notice { text: text.to_owned() });
    }
    let (commands, mut taken) = mpsc::channel(4);
    let mut session = Session::new(recorder.clone(), commands);
    let mut output = Vec::new();
    let mut assigned = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let take = async {
            while let Some(command) = taken.recv().await {
                assigned += u32::from(matches!(command, Command::Assign(_)));
            }
        };
        tokio::select! {
            ended = session.run(bytes, &mut output) => assert!(ended.is_err(), "input that ends is an error"),
            () = take => unreachable!("the session holds the sender"),
        }
    });
    while let Ok(command) = taken.try_recv() {
        assigned += u32::from(matches!(command, Command::Assign(_)));
    }
    assert!(assigned <= 1);
    assert_eq!(recorder.last_seq(), EVENTS);
    assert!(output.starts_with(br#"{"type":"hello""#) && output.ends_with(b"\n"));
}

/// What set-up commands, being root, can do to the journal between any two of our own acts. The bytes are the acts.
pub fn journal(bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("ozma-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    let path = folder.join(format!("{:?}.jsonl", std::thread::current().id()));
    let mut acts = Acts {
        journal: Journal::create(&path).expect("the folder can be written"),
        lines: Vec::new(),
        sound: 0,
        read: 0,
        file: path.clone(),
    };
    for act in bytes.chunks(3) {
        let [kind, one, two] = [0, 1, 2].map(|at| act.get(at).copied().unwrap_or_default());
        acts.act(kind, one, two);
    }
    acts.check(0);
    let _ = std::fs::remove_file(path);
}

struct Acts {
    journal: Journal,
    /// Every line there ever was.
    lines: Vec<String>,
    /// Lines up to here may be spoiled in the file.
    sound: usize,
    /// A reader that goes on where it was.
    read: u64,
    file: std::path::PathBuf,
}

impl Acts {
    fn act(&mut self, kind: u8, one: u8, two: u8) {
        match kind % 8 {
            0..=2 => self.append(usize::from(one) + usize::from(two)),
            // Enough of them to have the file written anew.
            3 => self.append((usize::from(one) << 12) + usize::from(two)),
            4 => self.journal.ack(u64::from(one)),
            5 => self.read = self.check(self.read),
            6 => drop(self.check(u64::from(one))),
            _ => self.spoil(one, two),
        }
        assert_eq!(self.journal.last_seq(), self.lines.len() as u64);
        assert!(self.journal.acked() <= self.journal.last_seq());
    }

    fn append(&mut self, bytes: usize) {
        let text = "x".repeat(bytes);
        let event = EventLine::new(self.lines.len() as u64 + 1, 0, &Event::Notice { text });
        let line = serde_json::to_string(&event).expect("an event line is plain data");
        self.journal.append(&line);
        self.lines.push(line);
    }

    /// Cuts the file, or writes over a part of it.
    fn spoil(&mut self, one: u8, two: u8) {
        self.sound = self.lines.len();
        let Ok(mut file) = OpenOptions::new().write(true).open(&self.file) else { return };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let at = length * u64::from(one) / 256;
        let _ = match two {
            0..=63 => file.set_len(at),
            _ => overwrite(&mut file, at, two),
        };
    }

    /// Reads everything behind `seq`; gives the number of the last line.
    fn check(&mut self, seq: u64) -> u64 {
        let mut cursor = self.journal.cursor(seq);
        let mut expected = seq.clamp(self.journal.acked(), self.journal.last_seq());
        loop {
            let batch = self.journal.read(&mut cursor);
            if batch.is_empty() {
                break;
            }
            for line in batch.split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").expect("whole lines");
                let at = usize::try_from(expected).expect("few lines");
                expected += 1;
                if line != self.lines[at].as_bytes() {
                    assert!(at < self.sound, "line {expected} is another one");
                    let told: EventLine = serde_json::from_slice(line).expect("an event");
                    assert_eq!((told.seq, told.kind.as_str()), (expected, "notice"));
                }
            }
        }
        assert_eq!(expected, self.journal.last_seq(), "lines are missing");
        expected
    }
}

fn overwrite(file: &mut File, at: u64, with: u8) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[with; 7])
}

/// Paths a tenant wants kept: what matches is below the workspace, and its folders were entered. The first line is
/// the pattern, the second a path.
pub fn pattern(text: &str) {
    let (text, path) = text.split_once('\n').unwrap_or((text, ""));
    let path: Vec<_> = path.split('/').collect();
    let Some(pattern) = Pattern::new(text) else { return };
    if pattern.matches(&path) {
        for folders in 0..path.len() {
            assert!(pattern.enters(&path[..folders]), "a match would not be found");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// As the worker says it, and not.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let known: Vec<_> =
            include_str!("../../protocol/tests/wire/to_sidecar.jsonl").lines().collect();
        prop_oneof![
            6 => select(known).prop_map(|line| line.as_bytes().to_vec()),
            2 => any::<u64>().prop_map(|seq| format!(r#"{{"type":"ack","data":{{"seq":{seq}}}}}"#).into_bytes()),
            2 => any::<u64>().prop_map(|seq| format!(r#"{{"type":"resume","data":{{"seq":{seq}}}}}"#).into_bytes()),
            1 => vec(any::<u8>(), 0..20),
        ]
    }

    /// Whether `pattern` matches, said in the plainest way.
    fn plainly(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], _) => path.is_empty(),
            (["**", rest @ ..], _) => {
                plainly(rest, path) || (!path.is_empty() && plainly(pattern, &path[1..]))
            }
            ([first, rest @ ..], [name, below @ ..]) => {
                plainly_name(first.as_bytes(), name.as_bytes()) && plainly(rest, below)
            }
            (_, []) => false,
        }
    }

    fn plainly_name(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => {
                plainly_name(rest, name) || (!name.is_empty() && plainly_name(pattern, &name[1..]))
            }
            ([first, rest @ ..], [byte, below @ ..]) => {
                (*first == b'?' || first == byte) && plainly_name(rest, below)
            }
            (_, []) => false,
        }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_worker_may_say_anything(lines in vec(line(), 0..9)) {
            worker_says(&lines.join(&b'\n'));
        }

        #[test]
        fn a_pattern_matches_what_it_says(
            segments in vec(select(&["**", "*", "a", "b", "a*", "?", "*b*a", "a**b"][..]), 1..6),
            path in vec("[ab]{1,3}", 1..6),
        ) {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let text = segments.join("/");
            let matches = Pattern::new(&text).unwrap().matches(&path);
            prop_assert_eq!(matches, plainly(&segments, &path));
            pattern(&format!("{text}\n{}", path.join("/")));
        }

        #[test]
        fn no_pattern_leads_out(text in any::<String>(), path in vec("[a.]{1,3}", 1..4)) {
            pattern(&format!("{text}\n{}", path.join("/")));
            let out = Pattern::new(&format!("{}/../x", path.join("/")));
            prop_assert!(out.is_none());
        }
    }

    proptest! {
        // Each writes megabytes.
        #![proptest_config(ProptestConfig { cases: config().cases / 16, ..config() })]

        #[test]
        fn no_line_is_missing_or_out_of_place_whatever_is_done_to_the_file(acts in vec(any::<u8>(), 0..90)) {
            journal(&acts);
        }
    }

    #[test]
    fn many_double_stars_take_no_longer_than_a_few() {
        let path = vec!["x"; 60];
        let pattern = Pattern::new(&format!("{}y", "**/x/".repeat(30))).unwrap();
        assert!(!pattern.matches(&path));
    }
}
