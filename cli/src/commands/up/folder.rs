//! What `ozma up` keeps in its folder beside the plane's and the worker's own: who it is, from start to start.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use protocol::{api::runs::RunList, secret::Secret};

use crate::{context::write_private, failure::Failure, stack::Stack};

/// Keeps a second `ozma up` out of the folder for as long as the value lives; makes the folder.
///
/// # Errors
/// One is in it, or the folder cannot be made.
pub(super) fn lock(data_dir: &Path) -> Result<File, Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(|error| {
        Failure::platform(format!("cannot make the folder {}: {error}", data_dir.display()))
            .hint("name another with --data-dir")
    })?;
    let file = File::create(data_dir.join("up.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::platform(format!("`ozma up` runs already in {}", data_dir.display()))
                .hint("use it (`ozma runs list`), stop it, or name another folder with --data-dir"))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// A name no other worker of this engine has: a worker removes what is left under its own name.
pub(super) fn worker_id(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join("worker.id");
    if let Ok(kept) = std::fs::read_to_string(&path) {
        return Ok(kept.trim().to_owned());
    }
    let random =
        getrandom::u32().map_err(|error| Failure::platform(format!("no randomness: {error}")))?;
    let id = format!("local-{random:08x}");
    write_private(&path, &id)?;
    Ok(id)
}

/// The tenant of this machine: kept beside the database, so that its runs are there after a restart.
pub(super) async fn tenant_token(stack: &Stack, data_dir: &Path) -> Result<Secret, Failure> {
    let path = data_dir.join("tenant.token");
    if let Ok(kept) = std::fs::read_to_string(&path) {
        let kept = Secret::new(kept.trim());
        let limit = [("limit", "1".to_owned())];
        let asked = stack.client(&kept)?.get::<RunList>("/api/v1/agent/runs", &limit).await;
        match asked {
            Ok(_) => return Ok(kept),
            // Revoked, or of a database that is no more.
            Err(failure) if failure.status == Some(401) => {}
            Err(failure) => return Err(failure),
        }
    }
    let token = stack.new_tenant("ozma up").await?;
    write_private(&path, token.expose())?;
    Ok(token)
}
