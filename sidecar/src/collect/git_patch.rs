//! A patch made by the image's git: everything since the start commit, commits and files it does not know
//! included. The repository's configuration is the provider's work: nothing in it may run a program of its choice
//! with more rights than it had.

use std::{
    fs::File,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use harness::process::signal_group;
use nix::sys::signal::Signal;

use super::start::Start;

/// The tree with nothing in it, which every git knows.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// How long one command of git may take: filters of the repository's configuration run within it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Longest complaint of git that is told.
const MAX_WHY_BYTES: u64 = 600;

/// Writes the patch; an empty file when nothing changed. What could not be put into it, in git's words.
pub(super) fn make(repo: &Start, scratch: &Path, patch: &Path) -> Result<Option<String>, String> {
    let index = scratch.join("index");
    let git = Git { path: &repo.path, index: &index, timeout: TIMEOUT };
    let start = repo.commit.as_deref().unwrap_or(EMPTY_TREE);
    // In an index of its own, so that what the provider staged stays as it is.
    let write = || {
        git.run(&["read-tree", start], None)?;
        let missing = git.run(&["add", "--all", "--ignore-errors", "."], None).err();
        let out = File::create(patch).map_err(|error| error.to_string())?;
        let diff = [
            "diff",
            "--cached",
            "--binary",
            "--full-index",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            start,
            "--",
        ];
        git.run(&diff, Some(out)).map(|()| missing)
    };
    let made = write();
    let _ = std::fs::remove_file(&index);
    made
}

struct Git<'a> {
    path: &'a Path,
    index: &'a Path,
    /// For one command.
    timeout: Duration,
}

impl Git<'_> {
    fn run(&self, args: &[&str], out: Option<File>) -> Result<(), String> {
        let told = |error: std::io::Error| format!("git: {error}");
        let mut child = Command::new("git")
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.quotePath=true", "-c", "core.pager=cat"])
            .args(["-c", "safe.directory=*"])
            .args(args)
            .env("GIT_DIR", self.path.join(".git"))
            .env("GIT_WORK_TREE", self.path)
            .env("GIT_INDEX_FILE", self.index)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .current_dir(self.path)
            .stdin(Stdio::null())
            .stdout(out.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(told)?;
        let (pid, timeout) = (child.id(), self.timeout);
        let (ended, waits) = mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let late = waits.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout);
            // Before git is waited for, so that the number is still its own.
            if late {
                signal_group(pid, Signal::SIGKILL);
            }
            late
        });
        let mut why = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            (&mut stderr).take(MAX_WHY_BYTES).read_to_end(&mut why).map_err(told)?;
            // Read on, so that it does not stop over a full pipe.
            std::io::copy(&mut stderr, &mut std::io::sink()).map_err(told)?;
        }
        drop(ended);
        let late = watch.join().unwrap_or_default();
        let status = child.wait().map_err(told)?;
        if late {
            return Err(format!("git {} took longer than {} s", args[0], timeout.as_secs()));
        }
        if status.success() {
            return Ok(());
        }
        Err(format!("git {} ({status}): {}", args[0], String::from_utf8_lossy(&why).trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_never_ends_ends_with_its_git() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index");
        let git = Git { path: folder.path(), index: &index, timeout: Duration::from_millis(300) };
        let why = git.run(&["-c", "alias.hang=!sleep 600 & sleep 600", "hang"], None).unwrap_err();
        assert!(why.contains("took longer"), "{why}");
    }
}
