//! What a folder takes of its disk. Pure counting; links are not followed.

use std::{collections::HashSet, fs, io, os::unix::fs::MetadataExt, path::Path};

/// Most files counted in one folder; more than that are [`UNCOUNTED`].
const MAX_FILES: usize = 1_000_000;

/// Most bytes of the names of folders that wait to be looked into; more are [`UNCOUNTED`].
const MAX_WAITING_BYTES: usize = 64 << 20;

/// More than can be counted, and so more than any bound.
pub(crate) const UNCOUNTED: u64 = u64::MAX;

/// Bytes of the blocks of everything below `folder`, a file with several names once. What vanishes meanwhile, or
/// may not be read, counts nothing.
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    count(folder, MAX_FILES, MAX_WAITING_BYTES).unwrap_or(UNCOUNTED)
}

fn count(folder: &Path, max_files: usize, max_waiting: usize) -> Option<u64> {
    let blocks = |about: &fs::Metadata| about.blocks().saturating_mul(512);
    let Ok(about) = fs::symlink_metadata(folder) else { return Some(0) };
    let (mut bytes, mut files) = (blocks(&about), 0);
    let (mut open, mut seen) = (vec![folder.to_owned()], HashSet::new());
    let mut waiting = folder.as_os_str().len();
    while let Some(path) = open.pop() {
        waiting -= path.as_os_str().len();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            // Deeper than a name can say, where anything may be.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return None,
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            files += 1;
            if files > max_files {
                return None;
            }
            let Ok(about) = entry.metadata() else { continue };
            if about.nlink() == 1 || about.is_dir() || seen.insert((about.dev(), about.ino())) {
                bytes = bytes.saturating_add(blocks(&about));
            }
            if about.is_dir() {
                let path = entry.path();
                waiting += path.as_os_str().len();
                if waiting > max_waiting {
                    return None;
                }
                open.push(path);
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_once_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let before = bytes_below(folder.path());
        fs::write(folder.path().join("one"), vec![1; 100_000]).unwrap();
        fs::hard_link(folder.path().join("one"), folder.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("usr")).unwrap();
        let grown = bytes_below(folder.path()) - before;
        assert!((100_000..200_000).contains(&grown), "{grown}");
        assert_eq!(bytes_below(Path::new("/nowhere")), 0);
    }

    #[test]
    fn what_is_too_much_to_count_is_more_than_any_bound() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c/d"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let (path, names) = (folder.path(), folder.path().as_os_str().len());
        assert!(count(path, 4, 1_000).is_some());
        assert_eq!(count(path, 3, 1_000), None);
        assert!(count(path, 4, 3 * (names + 2)).is_some());
        assert_eq!(count(path, 4, 3 * (names + 2) - 1), None);
    }

    #[test]
    fn nothing_hides_deeper_than_a_name_can_say() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let folder = tempfile::tempdir().unwrap();
        let name = "n".repeat(250);
        let mut open: std::os::fd::OwnedFd = fs::File::open(folder.path()).unwrap().into();
        for _ in 0..20 {
            mkdirat(&open, &name, Mode::RWXU).unwrap();
            open = openat(&open, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(bytes_below(folder.path()), UNCOUNTED);
    }
}
