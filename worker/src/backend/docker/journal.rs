//! The sidecar's journal out of an ended container, by archive download. The container's file system is
//! hostile: only a regular file is read, no link followed, and no more than a journal can hold.

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt};
use protocol::{
    ids::ExecutionId,
    limits::{MAX_JOURNAL_BYTES, MAX_SIDECAR_LINE_BYTES},
    sidecar::JOURNAL_PATH,
};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio_util::io::StreamReader;

use super::engine::{Docker, name};
use crate::backend::answer::Journal;

const BLOCK: usize = 512;

/// Longest extended header before the file's own, in bytes.
const MAX_EXTENDED: u64 = 64 << 10;

/// As much again as is unacknowledged may stand before it, acknowledged and not yet cut off; and a full journal
/// ends with the line that filled it.
pub(crate) const MAX_BYTES: u64 = 2 * MAX_JOURNAL_BYTES + 8 * MAX_SIDECAR_LINE_BYTES as u64;

impl Docker {
    pub(in crate::backend) async fn journal(&self, id: &ExecutionId) -> Option<Journal> {
        let options = DownloadFromContainerOptionsBuilder::new().path(JOURNAL_PATH).build();
        let client = self.client.clone();
        let name = name(id);
        let archive = client.download_from_container(&name, Some(options));
        let mut archive = StreamReader::new(archive.map_err(std::io::Error::other).boxed());
        match only_file(&mut archive).await {
            Ok(size) => Some(Box::new(BufReader::with_capacity(64 << 10, archive.take(size)))),
            Err(error) => {
                tracing::info!(execution.id = %id, error = %error, "no journal of {id} to read");
                None
            }
        }
    }
}

/// Reads up to the content of the archive's first file, and gives its size.
pub(crate) async fn only_file<R: AsyncRead + Unpin>(archive: &mut R) -> std::io::Result<u64> {
    let refuse = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    // An extended header or two come before the file's own.
    for _ in 0..4 {
        let mut header = [0; BLOCK];
        archive.read_exact(&mut header).await?;
        let size = octal(&header[124..136]).ok_or_else(|| refuse("a size that is none"))?;
        match header[156] {
            b'0' | 0 if size <= MAX_BYTES => return Ok(size),
            b'0' | 0 => return Err(refuse("the journal is too large")),
            b'x' | b'g' if size <= MAX_EXTENDED => {
                let mut rest = archive.take(size.next_multiple_of(BLOCK as u64));
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            _ => return Err(refuse("the journal is not a regular file")),
        }
    }
    Err(refuse("no file in the archive"))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, size: u64) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[156] = kind;
        header
    }

    #[tokio::test]
    async fn the_first_file_is_found_behind_extended_headers() {
        let mut archive = entry(b'x', 600);
        archive.extend(vec![b'p'; 1024]);
        archive.extend(entry(b'0', 5));
        archive.extend(b"lines");
        let mut archive = &archive[..];
        assert_eq!(only_file(&mut archive).await.unwrap(), 5);
        assert_eq!(archive, b"lines");
    }

    #[tokio::test]
    async fn links_folders_and_giants_are_refused() {
        for archive in
            [entry(b'2', 0), entry(b'5', 0), entry(b'0', MAX_BYTES + 1), entry(b'x', 1 << 30)]
        {
            only_file(&mut &archive[..]).await.unwrap_err();
        }
        only_file(&mut &b"short"[..]).await.unwrap_err();
    }
}
