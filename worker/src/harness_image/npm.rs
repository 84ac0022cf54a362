//! `npm pack` of one package: the user's registry, proxy and certificates, npm's own check of what came, and no
//! script of the package.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use serde::Deserialize;
use tokio::process::Command;

/// How long one package may take, a hundred megabytes over a slow line.
const FETCH_WITHIN: Duration = Duration::from_mins(15);

/// How much of npm's complaint is passed on, in characters from its end.
const MAX_COMPLAINT_CHARS: usize = 600;

/// A package as it came.
#[derive(Debug)]
pub(super) struct Fetched {
    pub file: PathBuf,
    /// The digest that npm checked it against.
    pub integrity: String,
}

#[derive(Deserialize)]
struct Packed {
    #[serde(default)]
    integrity: String,
}

/// Fetches `spec` into `folder`, which it makes.
///
/// # Errors
/// There is no npm, it fails, or takes too long.
pub(super) async fn pack(spec: &str, folder: &Path) -> anyhow::Result<Fetched> {
    std::fs::create_dir(folder).context("make a folder for the package")?;
    // With a package of its own the folder is a project: npm looks no further up for one, and for its `.npmrc`, in
    // folders that others may write to. Only the user's own configuration and the machine's have a say.
    std::fs::write(folder.join("package.json"), "{}").context("begin a project for the package")?;
    let run = Command::new("npm")
        .args(["pack", "--json", "--ignore-scripts", "--workspaces=false"])
        .args(["--pack-destination", ".", spec])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = match tokio::time::timeout(FETCH_WITHIN, run).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => anyhow::bail!(
            "npm is not on the PATH; it fetches the packages (Debian: `apt-get install npm`), and only while an image is made"
        ),
        Ok(Err(error)) => return Err(error).context("start npm"),
        Err(_) => anyhow::bail!("npm took longer than {} s", FETCH_WITHIN.as_secs()),
    };
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.trim();
        let from = said.chars().count().saturating_sub(MAX_COMPLAINT_CHARS);
        let said: String = said.chars().skip(from).collect();
        anyhow::bail!("npm could not fetch {spec} ({}):\n{said}", done.status);
    }
    // npm's own name for the file differs between its versions.
    let mut files = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
    let file = file.with_context(|| format!("npm fetched {spec} and left no package"))?;
    let packed: Vec<Packed> = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("npm fetched {spec} and did not say what"))?;
    let first = packed.into_iter().next().filter(|packed| !packed.integrity.is_empty());
    let integrity = first
        .map(|packed| packed.integrity)
        .with_context(|| format!("npm fetched {spec} and checked it against no digest"))?;
    Ok(Fetched { file, integrity })
}
