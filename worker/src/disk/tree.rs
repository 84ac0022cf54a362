//! What a folder takes of its disk. Pure counting; links are not followed.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

/// Files counted in one folder; what is beyond is not counted, and the answer too small.
const MAX_FILES: usize = 1_000_000;

/// Bytes of the blocks of everything below `folder`, a file with several names once. What vanishes meanwhile, or
/// may not be read, counts nothing.
pub(crate) fn bytes(folder: &Path) -> u64 {
    let (mut open, mut seen) = (vec![folder.to_owned()], HashSet::new());
    let (mut bytes, mut files) = (0_u64, 0);
    while let Some(path) = open.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        files += 1;
        if files > MAX_FILES {
            break;
        }
        if about.nlink() == 1 || about.is_dir() || seen.insert((about.dev(), about.ino())) {
            bytes = bytes.saturating_add(about.blocks().saturating_mul(512));
        }
        if about.is_dir()
            && let Ok(entries) = fs::read_dir(&path)
        {
            open.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_once_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let before = bytes(folder.path());
        fs::write(folder.path().join("one"), vec![1; 100_000]).unwrap();
        fs::hard_link(folder.path().join("one"), folder.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("usr")).unwrap();
        let grown = bytes(folder.path()) - before;
        assert!((100_000..200_000).contains(&grown), "{grown}");
        assert_eq!(bytes(Path::new("/nowhere")), 0);
    }
}
