//! The demo's repository for the direct backend, made with the machine's git. With containers it is in the
//! image.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::failure::Failure;

const FILES: [(&str, &str); 3] = [
    ("README.md", include_str!("../../../../compose/demo/project/README.md")),
    ("receipt.sh", include_str!("../../../../compose/demo/project/receipt.sh")),
    ("test.sh", include_str!("../../../../compose/demo/project/test.sh")),
];

/// Makes the bare repository below `folder`, once; its path.
///
/// # Errors
/// There is no git, or it fails.
pub(crate) fn make(folder: &Path) -> Result<String, Failure> {
    let bare = folder.join("demo.git");
    if !bare.exists() {
        let work = folder.join("demo-project");
        std::fs::create_dir_all(&work)?;
        for (name, text) in FILES {
            std::fs::write(work.join(name), text)?;
        }
        git(&work, &["init", "--quiet", "--initial-branch=main"])?;
        git(&work, &["add", "--all"])?;
        git(&work, &["commit", "--quiet", "--message", "A till receipt in plain sh"])?;
        git(&work, &["clone", "--quiet", "--bare", ".", "../demo.git"])?;
        std::fs::remove_dir_all(&work)?;
    }
    Ok(bare.display().to_string())
}

/// Nothing of the user's own git configuration takes part.
fn git(folder: &Path, args: &[&str]) -> Result<(), Failure> {
    let done = Command::new("git")
        .args(args)
        .current_dir(folder)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")])
        .envs([("GIT_AUTHOR_NAME", "Ozma"), ("GIT_AUTHOR_EMAIL", "demo@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Ozma"), ("GIT_COMMITTER_EMAIL", "demo@example.com")])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::platform(format!("cannot start git: {error}")).hint("install git")
        })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Failure::platform(format!("git {} failed: {}", args[0], said.trim())))
}
