//! A patch made by the image's git: everything since the start commit, commits and files it does not know
//! included. The repository's configuration is the provider's work: nothing in it may run a program of its choice
//! with more rights than it had.

use std::{
    fs::File,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use super::start::Start;

/// The tree with nothing in it, which every git knows.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// Longest complaint of git that is told.
const MAX_WHY_BYTES: u64 = 600;

/// Writes the patch; an empty file when nothing changed.
pub(super) fn make(repo: &Start, state: &Path, patch: &Path) -> Result<(), String> {
    let index = state.join(format!("{}.index", repo.folder));
    let git = Git { path: &repo.path, index: &index };
    let start = repo.commit.as_deref().unwrap_or(EMPTY_TREE);
    // In an index of its own, so that what the provider staged stays as it is.
    let made = git
        .run(&["read-tree", start], None)
        .and_then(|()| git.run(&["add", "--all", "--ignore-errors", "."], None).or(Ok(())))
        .and_then(|()| {
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
            git.run(&diff, Some(out))
        });
    let _ = std::fs::remove_file(&index);
    made
}

struct Git<'a> {
    path: &'a Path,
    index: &'a Path,
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
            .spawn()
            .map_err(told)?;
        let mut why = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            (&mut stderr).take(MAX_WHY_BYTES).read_to_end(&mut why).map_err(told)?;
            // Read on, so that it does not stop over a full pipe.
            std::io::copy(&mut stderr, &mut std::io::sink()).map_err(told)?;
        }
        let status = child.wait().map_err(told)?;
        if status.success() {
            return Ok(());
        }
        Err(format!("git {} ({status}): {}", args[0], String::from_utf8_lossy(&why).trim()))
    }
}
