//! Where a run keeps what its provider is handed, secrets among it: a folder of its own below the user's state, removed
//! with the run. What a run that was killed has left there is removed by the next one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::failure::Failure;

/// In every folder, and held by the run that it is of: the kernel lets go of it, however that run ends.
const LOCK: &str = "lock";

/// One run's folder, until it is dropped.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    _lock: File,
}

impl State {
    /// # Errors
    /// There is no home, or nothing can be written there.
    pub(super) fn begin(state_home: Option<&Path>) -> Result<Self, Failure> {
        const HINT: &str = "set XDG_STATE_HOME to a folder that can be written";
        let Some(home) = state_home else {
            return Err(Failure::platform("there is no home to keep a run's state in").hint(HINT));
        };
        let all = home.join("ozma/exec");
        Self::below(&all).map_err(|error| {
            let all = all.display();
            Failure::platform(format!("cannot keep a run's state in {all}: {error}")).hint(HINT)
        })
    }

    fn below(all: &Path) -> io::Result<Self> {
        // The provider works in another folder.
        let all = std::path::absolute(all)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
        // One at a time: a folder that was just made and is not locked yet looks like a dead run's.
        let door = lock_file(&all)?;
        door.lock()?;
        sweep(&all)?;
        let folder = all.join(Uuid::now_v7().to_string());
        DirBuilder::new().mode(0o700).create(&folder)?;
        let lock = lock_file(&folder)?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the folders whose runs are dead. One that cannot be removed keeps no other run from its work.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(lock) = lock_file(&entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(folder.join(LOCK))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let first = State::begin(Some(home.path())).unwrap();
        let all = home.path().join("ozma/exec");
        for folder in [&all, first.folder()] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let dead = all.join("dead");
        let elsewhere = home.path().join("elsewhere");
        for folder in [dead.join("deep"), elsewhere.clone()] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("mcp.json"), "secret").unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, dead.join("link")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, all.join("link")).unwrap();
        let second = State::begin(Some(home.path())).unwrap();
        assert!(!dead.exists() && first.folder().is_dir() && second.folder() != first.folder());
        assert_eq!(fs::read_to_string(elsewhere.join("mcp.json")).unwrap(), "secret");
        let gone = first.folder().to_owned();
        drop(first);
        assert!(!gone.exists() && second.folder().is_dir());
    }

    #[test]
    fn many_that_begin_at_once_leave_each_other_alone() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let state = State::begin(Some(home.path())).unwrap();
                        fs::write(state.folder().join("ours"), "").unwrap();
                        assert!(state.folder().join(LOCK).exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(home.path().join("ozma/exec")).unwrap().count(), 1);
    }

    #[test]
    fn without_a_home_it_says_what_to_set() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for home in [None, Some(file.path())] {
            let failure = State::begin(home).unwrap_err();
            assert_eq!(failure.exit_code, 3);
            assert!(failure.hint.unwrap().contains("XDG_STATE_HOME"));
        }
    }
}
