//! How the plane itself is.

use serde::{Deserialize, Serialize};

/// The answer of `GET /health`: 200 when `ok`, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    pub ok: bool,
    /// `ok` or `error`.
    pub db: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default)]
    pub request_id: String,
    #[serde(default)]
    pub version: String,
}

/// The answer of `GET /ready`: 200 when `ready`, else 503 with the parts that are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    pub ready: bool,
    /// `ok`, or what is wrong with it.
    pub database: String,
    /// `ok`, or what is wrong with it.
    pub dispatcher: String,
}
