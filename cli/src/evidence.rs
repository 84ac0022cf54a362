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

/// Largest file of events, in bytes; further ones are left out and the summary says `truncated`.
const MAX_EVENTS_BYTES: u64 = 256 << 20;

/// The folder of one run's evidence.
#[derive(Debug)]
pub(crate) struct Evidence {
    folder: PathBuf,
    events: File,
    left: u64,
}

impl Evidence {
    /// Makes the folder below `project`.
    ///
    /// # Errors
    /// It cannot be written there, or there is evidence of this run already.
    pub(crate) fn begin(project: &Path, run: &RunId) -> Result<Self, Failure> {
        let begin = || -> io::Result<Self> {
            let ours = project.join(FOLDER);
            let fresh = !ours.exists();
            let folder = ours.join("runs").join(run.as_str());
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            if fresh {
                // Evidence is not the project's to commit; whoever wants it there removes this file.
                private(&ours.join(".gitignore"))?.write_all(b"*\n")?;
            }
            let events = private(&folder.join("events.jsonl"))?;
            Ok(Self { folder, events, left: MAX_EVENTS_BYTES })
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

    /// Writes lines of events down as they come from elsewhere; false when there is no room for them.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub(crate) fn bytes(&mut self, lines: &[u8]) -> io::Result<bool> {
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if length > self.left {
            self.left = 0;
            return Ok(false);
        }
        self.left -= length;
        self.events.write_all(lines)?;
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
        evidence.left = 3;
        assert!(!evidence.event(&12345).unwrap() && !evidence.event(&1).unwrap());
        let events = fs::read_to_string(evidence.folder().join("events.jsonl")).unwrap();
        assert_eq!(events, "1\n");
        let ignored = project.path().join(".workbench/.gitignore");
        assert_eq!(fs::read_to_string(ignored).unwrap(), "*\n");
        assert!(Evidence::begin(project.path(), &run).is_err());
    }
}
