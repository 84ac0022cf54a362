//! An artifact's content in parts, then the artifact itself; nothing of one that is over a bound.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::fcntl::OFlag;
use protocol::{
    event::{Artifact, Event},
    ids::ArtifactUid,
    limits::{ARTIFACT_PART_BYTES, MAX_ARTIFACT_BYTES, MAX_ARTIFACTS_BYTES},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Where events go.
pub(super) type Say<'a> = dyn FnMut(Event) -> io::Result<()> + 'a;

/// What a file is kept as.
pub(super) struct Name<'a> {
    pub(super) filename: &'a str,
    pub(super) filepath: &'a str,
    pub(super) mime_type: &'a str,
    pub(super) description: &'a str,
}

/// Sends artifacts and counts their bytes.
pub(super) struct Sender<'a> {
    say: &'a mut Say<'a>,
    left: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(say: &'a mut Say<'a>) -> Self {
        Self { say, left: MAX_ARTIFACTS_BYTES }
    }

    pub(super) fn notice(&mut self, text: String) -> io::Result<()> {
        (self.say)(Event::Notice { text })
    }

    /// Sends the regular file at `path`, which may not be a link.
    pub(super) fn file(&mut self, path: &Path, name: &Name<'_>) -> io::Result<()> {
        match self.try_file(path, name) {
            Ok(()) => Ok(()),
            // The pipe to the supervisor is gone: nobody hears of the next file either.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
            Err(error) => self.notice(format!("{} was not kept: {error}", name.filepath)),
        }
    }

    fn try_file(&mut self, path: &Path, name: &Name<'_>) -> io::Result<()> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        let size = about.size();
        if size > MAX_ARTIFACT_BYTES {
            return self.too_large(name, size, "one artifact", MAX_ARTIFACT_BYTES);
        }
        if size > self.left {
            return self.too_large(name, size, "a run's artifacts", MAX_ARTIFACTS_BYTES);
        }
        self.left -= size;
        self.content(&file, size, name)
    }

    fn too_large(&mut self, name: &Name<'_>, size: u64, of: &str, max: u64) -> io::Result<()> {
        let text =
            format!("{} was not kept: {size} bytes, the bound of {of} is {max}", name.filepath);
        self.notice(text)
    }

    /// Exactly `size` bytes, whatever the file grows to meanwhile.
    fn content(&mut self, file: &File, size: u64, name: &Name<'_>) -> io::Result<()> {
        let artifact_uid = ArtifactUid::from_uuid(Uuid::now_v7());
        let mut source = file.take(size);
        let (mut hash, mut sent) = (Sha256::new(), 0);
        let mut part = vec![0; ARTIFACT_PART_BYTES];
        for index in 0.. {
            let count = fill(&mut source, &mut part)?;
            if count == 0 {
                break;
            }
            hash.update(&part[..count]);
            sent += count as u64;
            (self.say)(Event::ArtifactPart {
                artifact_uid: artifact_uid.clone(),
                index,
                base64: BASE64_STANDARD.encode(&part[..count]),
            })?;
        }
        (self.say)(Event::Artifact(Artifact {
            artifact_uid,
            artifact_type: "FILE".to_owned(),
            filename: Some(name.filename.to_owned()),
            filepath: Some(name.filepath.to_owned()),
            mime_type: Some(name.mime_type.to_owned()),
            description: Some(name.description.to_owned()),
            size_bytes: Some(sent),
            sha256: Some(hex::encode(hash.finalize())),
            url: None,
            branch: None,
        }))
    }

    pub(super) fn pull_request(&mut self, url: String, branch: String) -> io::Result<()> {
        (self.say)(Event::Artifact(Artifact {
            artifact_uid: ArtifactUid::from_uuid(Uuid::now_v7()),
            artifact_type: "PULL_REQUEST".to_owned(),
            filename: None,
            filepath: None,
            mime_type: None,
            description: None,
            size_bytes: None,
            sha256: None,
            url: Some(url),
            branch: Some(branch),
        }))
    }
}

/// Reads until `part` is full or the source ends.
fn fill(source: &mut impl Read, part: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < part.len() {
        match source.read(&mut part[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
