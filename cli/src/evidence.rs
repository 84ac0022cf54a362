//! What a run leaves on one's own machine: `.workbench/runs/<run id>/` with `events.jsonl`, `summary.json` and what
//! the provider printed. Private to its user: prompts and results are in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::ids::RunId;
use serde::Serialize;

use crate::failure::Failure;

/// Below the project.
const FOLDER: &str = ".workbench";

/// Largest file of events, in bytes; further lines are left out.
const MAX_EVENTS_BYTES: u64 = 256 << 20;

/// The folder of one run's evidence.
#[derive(Debug)]
pub(crate) struct Evidence {
    folder: PathBuf,
    events: File,
    /// Bytes written, and how many of them are whole lines.
    written: u64,
    whole: u64,
    /// At how many it is full.
    bound: u64,
}

impl Evidence {
    /// Makes the folder below `project`.
    ///
    /// # Errors
    /// It cannot be written there, or there is evidence of this run already.
    pub(crate) fn begin(project: &Path, run: &RunId) -> Result<Self, Failure> {
        let begin = || -> io::Result<Self> {
            let runs = project.join(FOLDER).join("runs");
            let folder = runs.join(run.as_str());
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // Evidence is not the project's to commit; whoever wants it there empties this file.
            match private(&runs.join(".gitignore")) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?.write_all(b"*\n")?,
            }
            let events = private(&folder.join("events.jsonl"))?;
            Ok(Self { folder, events, written: 0, whole: 0, bound: MAX_EVENTS_BYTES })
        };
        begin().map_err(|error| {
            let folder = project.join(FOLDER);
            Failure::platform(format!("cannot write evidence below {}: {error}", folder.display()))
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes one event down; false when there is no room for it.
    ///
    /// # Errors
    /// The disk is full, or gone.
    pub(crate) fn event(&mut self, event: &impl Serialize) -> io::Result<bool> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes lines of events down as they come from elsewhere, in parts that need not end where a line does; false
    /// when there is no room for all of it, and the file ends with the last whole line.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub(crate) fn bytes(&mut self, lines: &[u8]) -> io::Result<bool> {
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let room = usize::try_from(self.bound - self.written).unwrap_or(usize::MAX);
        let fitting = &lines[..room.min(lines.len())];
        if let Some(at) = fitting.iter().rposition(|byte| *byte == b'\n') {
            self.whole = self.written + length(&fitting[..=at]);
        }
        self.events.write_all(fitting)?;
        self.written += length(fitting);
        if fitting.len() < lines.len() {
            // Half a line is none.
            self.events.set_len(self.whole)?;
            (self.written, self.bound) = (self.whole, self.whole);
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub(crate) fn summary(&self, summary: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(summary)?;
        text.push(b'\n');
        private(&self.folder.join("summary.json"))?.write_all(&text)
    }
}

/// A new file that only its user may read.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_written_once_and_bounded() {
        let project = tempfile::tempdir().unwrap();
        let run: RunId = "0198c5f0-0000-7000-8000-000000000000".parse().unwrap();
        let mut evidence = Evidence::begin(project.path(), &run).unwrap();
        assert!(evidence.event(&1).unwrap());
        evidence.bound = 5;
        assert!(!evidence.event(&12345).unwrap() && !evidence.event(&1).unwrap());
        let events =
            |evidence: &Evidence| fs::read(evidence.folder().join("events.jsonl")).unwrap();
        assert_eq!(events(&evidence), b"1\n");
        let ignored = project.path().join(".workbench/runs/.gitignore");
        assert_eq!(fs::read_to_string(ignored).unwrap(), "*\n");
        assert!(Evidence::begin(project.path(), &run).is_err());
        let another: RunId = "0198c5f0-0000-7000-8000-000000000001".parse().unwrap();
        let mut evidence = Evidence::begin(project.path(), &another).unwrap();
        evidence.bound = 9;
        assert!(evidence.bytes(b"1\n2\n3").unwrap() && evidence.bytes(b"4").unwrap());
        assert!(!evidence.bytes(b"56789\n").unwrap());
        assert_eq!(events(&evidence), b"1\n2\n");
    }
}
