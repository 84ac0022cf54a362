//! The context file: where the plane is that `ozma up` or `ozma login` last named, and its token. Mode 0600.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::surroundings::Surroundings;

/// What a client command needs to know when the command line and the environment do not say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    /// The plane's root, without a slash at the end.
    pub url: String,
    pub token: Secret,
    /// Where the plane of this machine keeps its admin key, for the commands that need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_key_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The image for environments that are made without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_image: Option<String>,
    /// What runs of this machine's worker run in: `docker` or `direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// This machine's worker has a model; without one it has a script that fits no prompt.
    #[serde(default)]
    pub has_model: bool,
}

impl Context {
    /// A plane that nothing is known of but its address and a token.
    pub(crate) fn of(url: String, token: Secret) -> Self {
        Self {
            url,
            token,
            admin_key_file: None,
            data_dir: None,
            default_image: None,
            backend: None,
            has_model: false,
        }
    }
}

/// Where the context file is; `None` without a home.
pub(crate) fn path(around: &Surroundings) -> Option<PathBuf> {
    around.config_home.as_ref().map(|home| home.join("ozma/context.toml"))
}

/// The context, if one was written.
///
/// # Errors
/// The file is there and cannot be read or understood.
pub(crate) fn read(around: &Surroundings) -> anyhow::Result<Option<Context>> {
    match path(around) {
        Some(path) if path.exists() => service::config::read_toml(&path).map(Some),
        _ => Ok(None),
    }
}

/// Replaces the context file, in one step, readable by its owner only.
///
/// # Errors
/// There is no home, or the file cannot be written.
pub(crate) fn write(around: &Surroundings, context: &Context) -> anyhow::Result<PathBuf> {
    let path =
        path(around).context("find a home for the context file: set HOME or XDG_CONFIG_HOME")?;
    let text = toml::to_string(context).context("write the context as TOML")?;
    write_private(&path, &text)?;
    Ok(path)
}

/// Writes `text` to `path` with mode 0600, through a file beside it, so that a reader sees all or nothing.
///
/// # Errors
/// The folder cannot be made or the file not written.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("find the folder of the file")?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make the folder {}", folder.display()))?;
    let beside = path.with_extension(format!("new.{}", std::process::id()));
    // What a killed process left behind may have another mode.
    let _ = fs::remove_file(&beside);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let around =
            Surroundings { config_home: Some(folder.path().to_owned()), ..Surroundings::default() };
        assert!(read(&around).unwrap().is_none());
        let context = Context::of("http://127.0.0.1:1".to_owned(), Secret::new("opr_x"));
        let path = write(&around, &context).unwrap();
        write(&around, &context).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&around).unwrap().unwrap().token.expose(), "opr_x");
    }
}
