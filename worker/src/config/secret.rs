//! A secret that stands alone in a file.

use std::path::Path;

use anyhow::{Context, ensure};
use secrecy::SecretString;

/// The only line of a file, without its newline.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = text.trim();
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.into())
}
