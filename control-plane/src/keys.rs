//! The keys the plane makes for itself when it is given none: files of its data folder that only its user can
//! read. Their values are never logged.

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{self, Config, rules::check_admin_key};

/// The plane's two keys, where the admin's is if the plane keeps it, and the token of `/metrics` if there is one.
pub(crate) struct Keys {
    pub(crate) admin: SecretString,
    pub(crate) admin_path: Option<PathBuf>,
    pub(crate) encryption: SecretString,
    pub(crate) metrics: Option<SecretString>,
}

/// Makes the data folder, and in it the keys the configuration does not give.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<Keys> {
    let folder = &config.data_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make the data folder {}", folder.display()))?;
    let given = config::secret(config.admin_key.as_ref(), config.admin_key_file.as_deref())?;
    let (admin, admin_path) = if let Some(key) = given {
        (key, None)
    } else {
        let path = folder.join("admin.key");
        (kept(&path, "the admin key", "adm_")?, Some(path))
    };
    check_admin_key(admin.expose_secret())
        .map_err(|rule| anyhow::anyhow!("the admin key {rule}"))?;
    let given =
        config::secret(config.encryption_key.as_ref(), config.encryption_key_file.as_deref())?;
    let encryption = match given {
        Some(key) => key,
        None => kept(&folder.join("encryption.key"), "the encryption key", "")?,
    };
    let metrics =
        config::secret(config.metrics_token.as_ref(), config.metrics_token_file.as_deref())?;
    if let Some(token) = &metrics {
        check_admin_key(token.expose_secret())
            .map_err(|rule| anyhow::anyhow!("the metrics token {rule}"))?;
    }
    Ok(Keys { admin, admin_path, encryption, metrics })
}

/// The key in this file; a new one if there is no file.
fn kept(path: &Path, what: &str, prefix: &str) -> anyhow::Result<SecretString> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            narrow(path, what)?;
            let text = text.trim();
            ensure!(!text.is_empty(), "{what} in {} is empty", path.display());
            Ok(SecretString::from(text.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(path, what, prefix),
        Err(error) => Err(error).with_context(|| format!("read {what} from {}", path.display())),
    }
}

/// Takes away what others may do with a key file.
fn narrow(path: &Path, what: &str) -> anyhow::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{what} in {} could be read by others; no longer", path.display());
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("make {} readable by its owner only", path.display()))?;
    }
    Ok(())
}

fn make(path: &Path, what: &str, prefix: &str) -> anyhow::Result<SecretString> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let text = format!("{prefix}{}", hex::encode(bytes));
    // Complete or not there at all: a half-written key would lock everything sealed with it.
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::hard_link(&unfinished, path));
    let tidied = std::fs::remove_file(&unfinished);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return kept(path, what, prefix),
        other => other.with_context(|| format!("write {what} to {}", path.display()))?,
    }
    tidied.with_context(|| format!("remove {}", unfinished.display()))?;
    tracing::info!("{what} was made and is kept in {}", path.display());
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        let first = prepare(&config).unwrap();
        let path = first.admin_path.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&config.data_dir).unwrap().count(), 2, "two keys, no rest");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = prepare(&config).unwrap();
        assert_eq!(first.admin.expose_secret(), second.admin.expose_secret());
        assert_eq!(first.encryption.expose_secret(), second.encryption.expose_secret());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_given_key_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: folder.path().to_owned(),
            admin_key: Some(SecretString::from("an-admin-key".to_owned())),
            encryption_key: Some(SecretString::from("ab".repeat(32))),
            ..Config::default()
        };
        assert!(prepare(&config).unwrap().admin_path.is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
