//! Real git repositories in temporary folders, made by the `git` of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A repository with a working tree on branch `main`; gone with this value.
#[derive(Debug)]
pub struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// An empty repository.
    ///
    /// # Panics
    /// There is no `git`.
    #[expect(clippy::new_without_default, reason = "it makes a folder and starts a process")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let repository = Self { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// A repository with one commit of these files (path, content).
    pub fn with_files(files: &[(&str, &str)]) -> Self {
        let repository = Self::new();
        repository.commit(files, "first");
        repository
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the files and commits everything. A script (`#!…`) becomes executable. Gives the commit's id.
    ///
    /// # Panics
    /// A file cannot be written, or nothing changed.
    pub fn commit(&self, files: &[(&str, &str)], message: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        for (path, content) in files {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            fs::write(&path, content).expect("a file can be written");
            if content.starts_with("#!") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
            }
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs `git` in the repository, untouched by the user's own configuration. Gives its output.
    ///
    /// # Panics
    /// It fails; the text says what git said.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Test")
            .env("GIT_AUTHOR_EMAIL", "test@example.com")
            .env("GIT_COMMITTER_NAME", "Test")
            .env("GIT_COMMITTER_EMAIL", "test@example.com")
            .stdin(Stdio::null())
            .output()
            .expect("git is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A bare copy at `to`, as a server would hold it.
    pub fn bare(&self, to: &Path) -> PathBuf {
        let target = to.to_str().expect("a path of plain text");
        self.git(&["clone", "--quiet", "--bare", ".", target]);
        to.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_commits_files_and_knows_its_head() {
        let repository = Repository::with_files(&[("src/run.sh", "#!/bin/sh\n"), ("README", "x")]);
        let second = repository.commit(&[("README", "y")], "second");
        assert_eq!(second.len(), 40);
        assert_eq!(repository.git(&["rev-list", "--count", "main"]), "2");
        let folder = tempfile::tempdir().unwrap();
        let bare = repository.bare(&folder.path().join("bare.git"));
        assert!(bare.join("HEAD").exists());
    }
}
