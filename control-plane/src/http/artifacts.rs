//! What runs left behind. Names and types come from a container: they are checked before they become headers,
//! and content is a download that no browser draws.

use std::fmt::Write;

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
    error::ApiError,
    extract::{Json, Path},
    runs::artifact_item,
};
use crate::{runs, state::AppState, store::StoreError};

/// What `expires_at` says. The address itself lives as long as the artifact; clients that cache ask again.
const LINK_LIFE_MS: i64 = 24 * 3_600 * 1_000;

const BINARY: &str = "application/octet-stream";

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

/// `type/subtype` of plain characters, perhaps with a character set; else bytes.
pub(super) fn content_type(given: Option<&str>) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-/;= ".contains(c);
    given
        .filter(|text| text.len() <= 128 && text.contains('/') && text.chars().all(plain))
        .unwrap_or(BINARY)
}

/// A name without folders, so that whoever saves the content under it saves it where it meant to.
pub(super) fn file_name(given: Option<&str>) -> String {
    let name = given.and_then(|name| name.rsplit(['/', '\\']).next()).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    if matches!(name.as_str(), "" | "." | "..") { "artifact".to_owned() } else { name }
}

/// A download under that name, for old clients in ASCII, for others in full (RFC 6266).
fn disposition(filename: Option<&str>) -> HeaderValue {
    let name = file_name(filename);
    let keep = |c: char| c.is_ascii_alphanumeric() || "._- ()+@,".contains(c);
    let ascii: String = name.chars().map(|c| if keep(c) { c } else { '_' }).collect();
    let mut full = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            full.push(char::from(byte));
        } else {
            write!(full, "%{byte:02X}").expect("a string takes what is written");
        }
    }
    let text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{full}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_a_name() {
        for (name, expected) in [
            ("a.patch", "attachment; filename=\"a.patch\"; filename*=UTF-8''a.patch"),
            ("../../etc/passwd", "attachment; filename=\"passwd\"; filename*=UTF-8''passwd"),
            ("a\"\r\nx: y", "attachment; filename=\"a_x_ y\"; filename*=UTF-8''a%22x%3A%20y"),
            ("é", "attachment; filename=\"_\"; filename*=UTF-8''%C3%A9"),
            ("..", "attachment; filename=\"artifact\"; filename*=UTF-8''artifact"),
        ] {
            assert_eq!(disposition(Some(name)), expected, "{name:?}");
        }
    }

    #[test]
    fn a_hostile_type_is_bytes() {
        assert_eq!(
            content_type(Some("text/x-patch; charset=utf-8")),
            "text/x-patch; charset=utf-8"
        );
        for bad in ["html", "text/html\r\nx: y", "text/<b>"] {
            assert_eq!(content_type(Some(bad)), BINARY);
        }
    }
}
