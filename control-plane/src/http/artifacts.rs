//! What runs left behind; its content is a download that no browser draws.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header, uri::Authority},
    response::{IntoResponse, Response},
};
use protocol::{
    api::{
        artifacts::{ArtifactDownload, ArtifactList, ArtifactView},
        problem::Problem,
        time::Timestamp,
    },
    event::Artifact,
    ids::{ArtifactUid, RunId},
};

use super::{
    auth::Tenant,
    download::{BINARY, content_type, disposition, file_name},
    error::ApiError,
    extract::{Json, Path},
    runs::artifact_item,
};
use crate::{runs, state::AppState, store::StoreError};

/// What `expires_at` says. The address itself lives as long as the artifact; clients that cache ask again.
const LINK_LIFE_MS: i64 = 24 * 3_600 * 1_000;

fn missing(error: StoreError) -> ApiError {
    ApiError::store(error, "artifact")
}

/// List what a run left behind
#[utoipa::path(get, path = "/agent/runs/{run_id}/artifacts", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path)),
    responses((status = 200, body = ArtifactList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_run_artifacts(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Json<ArtifactList>, ApiError> {
    let found = runs::artifacts(&app.core, caller.scope(), &id).await;
    let found = found.map_err(|error| ApiError::store(error, "run"))?;
    Ok(Json(ArtifactList { artifacts: found.into_iter().filter_map(artifact_item).collect() }))
}

/// Get one artifact, with the address of its content
#[utoipa::path(get, path = "/agent/artifacts/{artifact_uid}", tag = "runs", security(("bearer" = [])),
    params(("artifact_uid" = String, Path)),
    responses((status = 200, body = ArtifactView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_artifact(
    caller: Tenant,
    State(app): State<AppState>,
    Path(uid): Path<ArtifactUid>,
    headers: HeaderMap,
) -> Result<Json<ArtifactView>, ApiError> {
    let stored = runs::artifact(&app.core, caller.scope(), &uid).await.map_err(missing)?;
    let artifact = with_content(stored.artifact)?;
    let root = app.public_url.clone().unwrap_or_else(|| asked_root(&headers));
    Ok(Json(ArtifactView {
        artifact_type: artifact.artifact_type,
        created_at: Timestamp(stored.created_at),
        data: ArtifactDownload {
            content_type: content_type(artifact.mime_type.as_deref()).to_owned(),
            download_url: format!("{root}/api/v1/agent/artifacts/{uid}/content"),
            expires_at: Timestamp(app.core.now() + LINK_LIFE_MS),
            filename: file_name(artifact.filename.as_deref()),
            filepath: artifact.filepath,
            description: artifact.description,
            size_bytes: artifact.size_bytes,
        },
        artifact_uid: uid,
    }))
}

/// Download an artifact's content
#[utoipa::path(get, path = "/agent/artifacts/{artifact_uid}/content", tag = "runs",
    security(("bearer" = [])), params(("artifact_uid" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_artifact_content(
    caller: Tenant,
    State(app): State<AppState>,
    Path(uid): Path<ArtifactUid>,
) -> Result<Response, ApiError> {
    let stored = runs::artifact(&app.core, caller.scope(), &uid).await.map_err(missing)?;
    let artifact = with_content(stored.artifact)?;
    let content = runs::artifact_content(&app.core, caller.scope(), &uid).await.map_err(missing)?;
    let kind = HeaderValue::from_str(content_type(artifact.mime_type.as_deref()));
    let kind = kind.unwrap_or(HeaderValue::from_static(BINARY));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, disposition(artifact.filename.as_deref())),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, content).into_response())
}

/// Only files have content; others are in lists only (oz-api.md 1.7).
fn with_content(artifact: Artifact) -> Result<Artifact, ApiError> {
    if artifact.artifact_type == "FILE" {
        Ok(artifact)
    } else {
        Err(ApiError::NotFound("artifact"))
    }
}

/// The root as the caller wrote it, which is what it can reach.
fn asked_root(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.and_then(|text| text.parse::<Authority>().ok());
    let https = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let scheme = if https { "https" } else { "http" };
    host.map_or_else(String::new, |host| format!("{scheme}://{host}"))
}
