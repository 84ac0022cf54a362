//! The image's only layer: the packages' files, renamed, owned by root, written as they are unpacked. What a package
//! says of paths is checked; links and devices are no part of any.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::{Stream, stream};
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::recipe::Recipe;

/// Unpacked bytes of one image; a package with more is refused.
const MAX_BYTES: u64 = 4 << 30;

/// Files of one image; a package with more is refused.
const MAX_FILES: usize = 50_000;

/// Parts on their way to the engine.
const PART_BYTES: usize = 256 << 10;
const PARTS: usize = 16;

/// Seconds since 1970: the same packages make the same layer.
const MTIME: u64 = 499_162_500;

/// The layer as a tar archive. An error in it ends the request that sends it, and so makes no image.
pub(super) fn stream(
    recipe: Recipe,
    sources: Vec<PathBuf>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (parts, receiver) = mpsc::channel(PARTS);
    // Ends by itself: with the packages, or with the receiver.
    tokio::task::spawn_blocking(move || {
        let writer = BufWriter::with_capacity(PART_BYTES, Parts(parts.clone()));
        if let Err(error) = write(&recipe, &sources, writer) {
            let _ = parts.blocking_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        let part = receiver.recv().await?;
        Some((part, receiver))
    })
}

/// Hands parts to the request.
struct Parts(mpsc::Sender<io::Result<Bytes>>);

impl Write for Parts {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(part)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(recipe: &Recipe, sources: &[PathBuf], writer: impl Write) -> io::Result<()> {
    let mut layer = Layer {
        archive: Builder::new(writer),
        folder: recipe.folder.clone(),
        names: BTreeSet::new(),
        bytes: 0,
    };
    for (package, source) in recipe.packages.iter().zip(sources) {
        let mut packed = Archive::new(GzDecoder::new(File::open(source)?));
        for entry in packed.entries()? {
            let entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.into_owned();
            // The first folder is called `package`, or anything else.
            let Some(below) = below_root(&path) else {
                return Err(refused(&format!("{} has the file {}", package.spec, path.display())));
            };
            let Some(target) = package.target(&below) else { continue };
            let runs = entry.header().mode()? & 0o111 != 0;
            let size = entry.size();
            layer.file(&target, runs, size, entry)?;
        }
    }
    if let Some(script) = recipe.script {
        let text = script.text.as_bytes();
        layer.file(script.path, true, u64::try_from(text.len()).unwrap_or(u64::MAX), text)?;
    }
    if !layer.names.contains(&format!("{}/{}", recipe.folder, recipe.program)) {
        let lacking = format!("the packages of {} hold no {}", recipe.version, recipe.program);
        return Err(refused(&lacking));
    }
    layer.archive.into_inner()?.flush()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The path without its first folder; `None` where it would lead anywhere else.
fn below_root(path: &Path) -> Option<String> {
    let mut parts = path.components();
    matches!(parts.next()?, Component::Normal(_)).then_some(())?;
    let rest = parts.as_path();
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let text = rest.to_str()?;
    (plain && !text.is_empty()).then(|| text.to_owned())
}

struct Layer<W: Write> {
    archive: Builder<W>,
    folder: String,
    /// Everything that is in it, folders included.
    names: BTreeSet<String>,
    bytes: u64,
}

impl<W: Write> Layer<W> {
    fn file(&mut self, target: &str, runs: bool, size: u64, content: impl Read) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAX_BYTES || self.names.len() >= MAX_FILES {
            return Err(refused(&format!(
                "the packages hold more than {MAX_BYTES} bytes or {MAX_FILES} files"
            )));
        }
        let name = format!("{}/{target}", self.folder);
        for (at, _) in name.match_indices('/') {
            let folder = name.get(..at).unwrap_or_default();
            if self.names.insert(folder.to_owned()) {
                let mut header = header(EntryType::Directory, 0o755, 0);
                self.archive.append_data(&mut header, format!("{folder}/"), io::empty())?;
            }
        }
        let mut header = header(EntryType::Regular, if runs { 0o755 } else { 0o644 }, size);
        self.archive.append_data(&mut header, &name, content)?;
        self.names.insert(name);
        Ok(())
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use protocol::spec::ProviderKind;

    use super::*;

    fn package(folder: &Path, files: &[(&str, u32, &str)]) -> PathBuf {
        let path = folder.join("package.tgz");
        let gzip = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        let mut archive = Builder::new(gzip);
        for (name, mode, text) in files {
            let mut header = header(EntryType::Regular, *mode, text.len() as u64);
            // Not by `set_path`, which refuses what a hostile package would hold.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
        path
    }

    fn layer(files: &[(&str, u32, &str)]) -> io::Result<Vec<(String, u32, u64)>> {
        let folder = tempfile::tempdir().unwrap();
        let source = package(folder.path(), files);
        let recipe = Recipe::of(ProviderKind::Claude, None, "x86_64").unwrap();
        let mut made = Vec::new();
        write(&recipe, &[source], &mut made)?;
        let mut archive = Archive::new(made.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            (path, entry.header().mode().unwrap(), entry.header().uid().unwrap())
        });
        Ok(entries.collect())
    }

    #[test]
    fn a_package_becomes_a_folder_that_a_volume_can_be_filled_from() {
        let made = layer(&[
            ("package/package.json", 0o644, "{}"),
            ("package/claude", 0o700, "#!/bin/sh\n"),
            ("package/LICENSE.md", 0o666, "mine"),
        ]);
        let expected = [
            ("harness/", 0o755),
            ("harness/claude/", 0o755),
            ("harness/claude/bin/", 0o755),
            ("harness/claude/bin/claude", 0o755),
            ("harness/claude/LICENSE.md", 0o644),
        ];
        assert_eq!(made.unwrap(), expected.map(|(name, mode)| (name.to_owned(), mode, 0)));
    }

    #[test]
    fn what_is_no_package_makes_no_layer() {
        let lacking = layer(&[("package/package.json", 0o644, "{}")]).unwrap_err();
        assert!(lacking.to_string().contains("hold no bin/claude"), "{lacking}");
        for hostile in ["package/../../etc/passwd", "../claude", "/claude", "claude"] {
            let refused = layer(&[("package/claude", 0o755, ""), (hostile, 0o644, "x")]);
            assert!(refused.is_err(), "{hostile} was taken: {refused:?}");
        }
    }
}
