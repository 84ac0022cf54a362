//! Pages of a list.

use serde::{Deserialize, Serialize};

/// Where a list goes on. `next_cursor` is opaque: hand it back as `cursor` beside the same parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PageInfo {
    pub has_next_page: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
