//! What an admin allows one tenant. Ours.

use serde::{Deserialize, Serialize};

use crate::ids::TenantId;

/// The body of `PUT /tenants/{tenant_id}/limits`: it takes the place of what was chosen before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantLimits {
    /// Runs that may wait; the next one is 429. 0 for no bound; absent: the plane's `max_queued_runs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_runs: Option<u32>,
    /// Runs under way at once; the others wait. 0 for no bound; absent: the plane's `max_running_runs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running_runs: Option<u32>,
}

/// One tenant as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantView {
    pub tenant_id: TenantId,
    /// Runs that wait.
    pub queued: u64,
    /// Runs that are handed over or under way.
    pub running: u64,
    /// What holds for it; 0 for no bound.
    pub max_queued_runs: u32,
    pub max_running_runs: u32,
    /// What was chosen for it; absent where the plane's settings hold.
    #[serde(default)]
    pub own_limits: TenantLimits,
}

/// The answer of `GET /tenants`: who has runs that are not over, a limit or a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantList {
    /// By id.
    pub tenants: Vec<TenantView>,
    /// Give it as `after` to get the next ones; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TenantId>,
}
