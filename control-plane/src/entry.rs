//! Who may enter: the admin key's hash and the rule for everybody else. It never holds a token's text.

use protocol::ids::TenantId;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::config::Tenancy;

/// Who may enter.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) admin_digest: [u8; 32],
    pub(crate) admin_id: TenantId,
    pub(crate) tenancy: Tenancy,
    /// What `/metrics` asks for; `None` leaves it open.
    pub(crate) metrics_digest: Option<[u8; 32]>,
}

impl Auth {
    pub(crate) fn new(
        admin_key: &SecretString,
        tenancy: Tenancy,
        metrics_token: Option<&SecretString>,
    ) -> Self {
        let admin_digest = digest(admin_key.expose_secret());
        let metrics_digest = metrics_token.map(|token| digest(token.expose_secret()));
        Self { admin_digest, admin_id: tenant_of(&admin_digest), tenancy, metrics_digest }
    }
}

pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A tenant is named by the hash of its token (oz-api.md 1.14).
pub(crate) fn tenant_of(digest: &[u8; 32]) -> TenantId {
    hex::encode(digest).try_into().expect("hex is letters and digits")
}
