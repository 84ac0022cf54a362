//! What a run left behind, as clients see it (oz-api.md 1.4 and 1.7).

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::ids::ArtifactUid;

/// An artifact in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "artifact_type", rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ArtifactItem {
    PullRequest { created_at: Timestamp, data: PullRequestData },
    File { created_at: Timestamp, data: FileData },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequestData {
    pub url: String,
    pub branch: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileData {
    pub artifact_uid: ArtifactUid,
    pub filename: String,
    /// Where it stood, below the workspace.
    pub filepath: String,
    pub mime_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// Ours: the answer of `GET /agent/runs/{id}/artifacts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactList {
    pub artifacts: Vec<ArtifactItem>,
}

/// The answer of `GET /agent/artifacts/{uid}`: only `FILE` artifacts have content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactView {
    pub artifact_uid: ArtifactUid,
    pub artifact_type: String,
    pub created_at: Timestamp,
    pub data: ArtifactDownload,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactDownload {
    pub content_type: String,
    /// Needs the same bearer token as every other request.
    pub download_url: String,
    pub expires_at: Timestamp,
    pub filename: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filepath: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}
