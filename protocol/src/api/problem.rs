//! The one form of every error answer: `application/problem+json` (oz-api.md 1.1).

use serde::{Deserialize, Serialize};

/// `type` is this and the code: a reference relative to the plane that answers.
pub const TYPE_PREFIX: &str = "/docs/troubleshooting/errors/";

/// The content type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error, for programs by the last part of `type`, for people by `detail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// An address that ends in the stable code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// The title, with the detail in brackets; for older clients.
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The request's id, as in `X-Request-Id` and in the plane's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Ours: the field, parameter or header that is wrong, as a path (`config.environment_id`, `repos[2].url`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// The stable code at the end of `type`.
    pub fn code(&self) -> &str {
        self.kind.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}
