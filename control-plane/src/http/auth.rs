//! One extractor per kind of caller: a handler that needs a right has it among its parameters. Only here a
//! [`Scope`] is made. Token texts are never kept, logged or shown; only their hashes are compared.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use protocol::ids::TenantId;
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::{
    config::Tenancy,
    entry::{digest, tenant_of},
    scope::Scope,
    state::AppState,
    store::TokenKind,
};

/// A longer token is refused unread.
const MAX_TOKEN_BYTES: usize = 512;

/// What the plane's own tokens begin with. Such a text that is not in the books was revoked or made up, and is
/// nobody, also with open tenancy.
pub(crate) const TENANT_PREFIX: &str = "opr_";
pub(crate) const WORKER_PREFIX: &str = "wrk_";
const ISSUED_PREFIXES: [&str; 3] = [TENANT_PREFIX, WORKER_PREFIX, "exe_"];

/// Anybody who has data here: a tenant, or the admin.
#[derive(Debug)]
pub(crate) struct Tenant(Scope);

impl Tenant {
    pub(crate) fn scope(&self) -> &Scope {
        &self.0
    }
}

/// The admin.
#[derive(Debug)]
pub(crate) struct Admin(TenantId);

impl Admin {
    pub(crate) fn id(&self) -> &TenantId {
        &self.0
    }
}

/// A worker, or the admin in its place.
#[derive(Debug)]
pub(crate) struct WorkerCaller(());

impl FromRequestParts<AppState> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        match identify(parts, app).await? {
            Caller::Admin(id) => Ok(Self(Scope::Admin(id))),
            Caller::Tenant(id) => Ok(Self(Scope::Tenant(id))),
            Caller::Worker => Err(ApiError::Forbidden("a worker's token connects workers only")),
        }
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        match identify(parts, app).await? {
            Caller::Admin(id) => Ok(Self(id)),
            Caller::Tenant(_) | Caller::Worker => {
                Err(ApiError::Forbidden("this needs the admin key"))
            }
        }
    }
}

impl FromRequestParts<AppState> for WorkerCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        match identify(parts, app).await? {
            Caller::Admin(_) | Caller::Worker => Ok(Self(())),
            Caller::Tenant(_) => {
                Err(ApiError::Forbidden("a worker connects with a worker token or the admin key"))
            }
        }
    }
}

/// Whoever may read the plane's numbers: everybody, or who brings the token that the operator chose.
#[derive(Debug)]
pub(crate) struct MetricsReader(());

impl FromRequestParts<AppState> for MetricsReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let Some(expected) = &app.auth.metrics_digest else { return Ok(Self(())) };
        let brought = digest(bearer(parts)?);
        let same = brought[..].ct_eq(&expected[..]) | brought[..].ct_eq(&app.auth.admin_digest[..]);
        if same.into() {
            Ok(Self(()))
        } else {
            Err(ApiError::Unauthenticated("this plane's metrics ask for its metrics token"))
        }
    }
}

enum Caller {
    Admin(TenantId),
    Tenant(TenantId),
    Worker,
}

async fn identify(parts: &Parts, app: &AppState) -> Result<Caller, ApiError> {
    let token = bearer(parts)?;
    let digest = digest(token);
    let admin: bool = digest[..].ct_eq(&app.auth.admin_digest[..]).into();
    if admin {
        return Ok(Caller::Admin(app.auth.admin_id.clone()));
    }
    let issued = app.core.store.token(&hex::encode(digest)).await;
    match issued.map_err(|error| ApiError::store(error, "token"))? {
        Some(row) if row.kind == TokenKind::Worker => Ok(Caller::Worker),
        Some(row) => Ok(Caller::Tenant(row.owner)),
        None if app.auth.tenancy == Tenancy::Registered => {
            Err(ApiError::Unauthenticated("the token is not known here; an admin issues tokens"))
        }
        None if ISSUED_PREFIXES.iter().any(|prefix| token.starts_with(prefix)) => {
            Err(ApiError::Unauthenticated("the token was revoked, or issued elsewhere"))
        }
        None => Ok(Caller::Tenant(tenant_of(&digest))),
    }
}

fn bearer(parts: &Parts) -> Result<&str, ApiError> {
    let missing = "send the header Authorization: Bearer <token>";
    let header = parts.headers.get(header::AUTHORIZATION);
    let header = header.ok_or(ApiError::Unauthenticated(missing))?;
    let text = header.to_str().map_err(|_| ApiError::Unauthenticated(missing))?;
    let (scheme, token) = text.split_once(' ').ok_or(ApiError::Unauthenticated(missing))?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(ApiError::Unauthenticated(missing));
    }
    Ok(token)
}
