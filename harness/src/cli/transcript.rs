//! What a provider printed, byte for byte but for secrets, in a file that is kept with the run.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use protocol::{event::Event, limits::MAX_ARTIFACT_BYTES, sidecar::TRANSCRIPT_FILE};

/// Largest transcript, in bytes: the largest file that is kept of a run. What comes after is read and not written
/// down, and a `truncated` event says so.
const MAX_BYTES: u64 = MAX_ARTIFACT_BYTES;

#[derive(Debug)]
pub(super) struct Transcript {
    path: PathBuf,
    file: Place,
    left: u64,
}

#[derive(Debug)]
enum Place {
    /// Nothing was printed yet; there is no file of nothing.
    Nothing,
    Open(File),
    /// It is full, or could not be written.
    Over,
}

impl Transcript {
    /// A file in `folder`, in place of one that is there.
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        super::home::make(folder)?;
        let path = folder.join(TRANSCRIPT_FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { path, file: Place::Nothing, left: MAX_BYTES })
    }

    /// Writes a line down, or part of one. What a person should know, the first time something is left out.
    pub(super) fn write(&mut self, bytes: &[u8], newline: bool) -> Option<Event> {
        if matches!(self.file, Place::Over) {
            return None;
        }
        let length = bytes.len() as u64 + u64::from(newline);
        if length > self.left {
            self.file = Place::Over;
            return Some(Event::Truncated { what: "transcript".to_owned(), limit: MAX_BYTES });
        }
        self.left -= length;
        let error = self.append(bytes, newline).err()?;
        self.file = Place::Over;
        Some(Event::Notice { text: format!("the transcript is not complete: {error}") })
    }

    /// Straight to the file: what is written stays, whatever ends this process.
    fn append(&mut self, bytes: &[u8], newline: bool) -> io::Result<()> {
        if matches!(self.file, Place::Nothing) {
            let mut new = OpenOptions::new();
            let file = new.write(true).create_new(true).mode(0o600).open(&self.path)?;
            self.file = Place::Open(file);
        }
        if let Place::Open(file) = &mut self.file {
            file.write_all(bytes)?;
            file.write_all(if newline { b"\n" } else { b"" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_was_printed_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TRANSCRIPT_FILE);
        std::fs::write(&path, "of an earlier run").unwrap();
        let mut transcript = Transcript::begin(folder.path()).unwrap();
        assert!(!path.exists());
        assert_eq!(transcript.write(b"{}", true), None);
        assert_eq!(transcript.write(b"\xff", false), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n\xff");
        transcript.left = 5;
        let told = transcript.write(b"12345", true);
        assert!(matches!(told, Some(Event::Truncated { limit: MAX_BYTES, .. })));
        assert_eq!(transcript.write(b"1", true), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n\xff");
    }
}
