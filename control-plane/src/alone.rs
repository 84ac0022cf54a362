//! One plane a `SQLite` file: two would each take the other's silence for their own, and wake nobody. The lock is
//! the kernel's, so that a plane that was killed leaves none behind.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail};

use crate::store::Store;

/// Takes the database for this process, for as long as the answer lives. `None` where several may share it.
///
/// # Errors
/// Another plane has it.
pub(crate) fn hold(url: &str) -> anyhow::Result<Option<File>> {
    let Some(database) = Store::file_of(url)? else { return Ok(None) };
    let mut path = database.into_os_string();
    path.push(".lock");
    let path = Path::new(&path);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open the lock file {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => bail!(
            "another plane runs on this SQLite database (it holds {}): stop it first; several planes at \
             once need PostgreSQL (DATABASE_URL=postgres://…)",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks. Then it is as it was: the operator's to see to.
            tracing::warn!(error = %error, "no lock on {}: make sure that one plane uses it", path.display());
            Ok(Some(file))
        }
    }
}
