//! What a child that clones without git is told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::source::Source;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) path: PathBuf,
    /// A file of further certificate authorities.
    pub(crate) extra_ca: Option<PathBuf>,
}
