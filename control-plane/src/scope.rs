//! Whose data a caller may touch. Every question to the store about a tenant's data carries one.

use protocol::ids::TenantId;

/// Proof of who asks, made by authentication and by nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Sees its own things and the global ones.
    Tenant(TenantId),
    /// Sees everybody's; its own id owns what it creates.
    Admin(TenantId),
}

impl Scope {
    /// Who owns what this caller creates.
    pub fn owner(&self) -> &TenantId {
        match self {
            Self::Tenant(id) | Self::Admin(id) => id,
        }
    }

    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Admin(_))
    }

    /// For `where ($n = 1 or owner = $m)`: a number, because the two databases differ on booleans.
    pub(crate) fn sees_all(&self) -> i64 {
        i64::from(self.is_admin())
    }
}
