//! Where a repository stood when the run began.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) folder: String,
    pub(super) path: PathBuf,
    pub(super) commit: Option<String>,
}
