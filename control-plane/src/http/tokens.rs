//! Tokens: issue, list, revoke. By the admin only. A token's text leaves here once and is kept nowhere.

use axum::{extract::State, http::StatusCode};
use protocol::{
    api::{
        problem::Problem,
        time::Timestamp,
        tokens::{CreateToken, TokenCreated, TokenKind as Kind, TokenList, TokenView},
    },
    secret::Secret,
};

use super::{
    auth::{self, Admin},
    error::ApiError,
    extract::{Body, Json, Path, TokenId},
    forms,
};
use crate::{
    entry,
    state::AppState,
    store::{TokenKind, TokenRow},
};

/// Issue a token. Its text is in this answer and nowhere else
#[utoipa::path(post, path = "/tokens", tag = "admin", security(("bearer" = [])),
    request_body = CreateToken,
    responses((status = 200, body = TokenCreated), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_token(
    admin: Admin,
    State(app): State<AppState>,
    Body(body, _): Body<CreateToken>,
) -> Result<Json<TokenCreated>, ApiError> {
    let label = forms::label("label", &body.label)?;
    let (prefix, kind) = match body.kind {
        Kind::Tenant => (auth::TENANT_PREFIX, TokenKind::Tenant),
        Kind::Worker if body.tenant_id.is_some() => {
            return Err(ApiError::invalid("tenant_id", "is for tenants' tokens only"));
        }
        Kind::Worker => (auth::WORKER_PREFIX, TokenKind::Worker),
    };
    let text = new_text(prefix)?;
    let digest = entry::digest(&text);
    let owner = match (kind, body.tenant_id) {
        (TokenKind::Worker, _) => admin.id().clone(),
        (TokenKind::Tenant, given) => given.unwrap_or_else(|| entry::tenant_of(&digest)),
    };
    let (store, now) = (&app.core.store, app.core.now());
    let row = store.insert_token(&hex::encode(digest), kind, &owner, &label, now).await;
    let row = row.map_err(|error| ApiError::store(error, "token"))?;
    Ok(Json(TokenCreated { token_info: view(row), token: Secret::new(text) }))
}

/// List the tokens that are worth something, the newest first, without their texts
#[utoipa::path(get, path = "/tokens", tag = "admin", security(("bearer" = [])),
    responses((status = 200, body = TokenList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_tokens(
    _: Admin,
    State(app): State<AppState>,
) -> Result<Json<TokenList>, ApiError> {
    let rows = app.core.store.tokens().await.map_err(|error| ApiError::store(error, "token"))?;
    let valid = rows.into_iter().filter(|row| row.revoked_at.is_none());
    Ok(Json(TokenList { tokens: valid.map(view).collect() }))
}

/// Revoke a token. What its holder owns stays
#[utoipa::path(delete, path = "/tokens/{token_id}", tag = "admin", security(("bearer" = [])),
    params(("token_id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_token(
    _: Admin,
    State(app): State<AppState>,
    Path(TokenId(id)): Path<TokenId>,
) -> Result<StatusCode, ApiError> {
    let revoked = app.core.store.revoke_token(&id, app.core.now()).await;
    revoked.map_err(|error| ApiError::store(error, "token"))?;
    Ok(StatusCode::NO_CONTENT)
}

/// 256 random bits behind a prefix that says what it is for.
fn new_text(prefix: &str) -> Result<String, ApiError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::Internal(anyhow::anyhow!("no randomness: {error}")))?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

fn view(row: TokenRow) -> TokenView {
    let (kind, tenant_id) = match row.kind {
        TokenKind::Tenant => (Kind::Tenant, Some(row.owner)),
        TokenKind::Worker => (Kind::Worker, None),
    };
    let created_at = Timestamp(row.created_at);
    TokenView { id: row.id, kind, label: row.label, tenant_id, created_at }
}
