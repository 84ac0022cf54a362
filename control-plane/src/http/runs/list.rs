//! Listing runs: the Oz filters, and pages by cursor (oz-api.md 1.5).

use std::str::FromStr;

use axum::extract::State;
use protocol::{
    api::{
        lists::PageInfo,
        problem::Problem,
        runs::{RunItem, RunList},
        time::Timestamp,
    },
    ids::{EnvironmentId, RunId},
    run::RunState,
};

use super::view;
use crate::{
    http::{
        auth::Tenant,
        error::ApiError,
        extract::{Ignored, Json},
        forms::{self, MAX_LABEL_BYTES},
        params::Params,
    },
    runs::{self, ListError, RunFilter, SortBy},
    state::AppState,
};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 500;
const MAX_METADATA: usize = 5;

/// What clients say for runs without an environment.
const NO_ENVIRONMENT: &str = "empty-environment";

/// List runs
#[utoipa::path(get, path = "/agent/runs", tag = "runs", security(("bearer" = [])),
    params(
        ("limit" = Option<u32>, Query, description = "1 to 500, 20 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same other parameters"),
        ("sort_by" = Option<String>, Query, description = "`updated_at` (default), `created_at`, `title` or `agent`"),
        ("sort_order" = Option<String>, Query, description = "`desc` (default) or `asc`"),
        ("state" = Option<Vec<RunState>>, Query, description = "Any of these; the key repeats"),
        ("name" = Option<String>, Query, description = "`config.name`"),
        ("model_id" = Option<String>, Query),
        ("source" = Option<String>, Query),
        ("environment_id" = Option<String>, Query, description = "`empty-environment`: those without one"),
        ("ancestor_run_id" = Option<String>, Query, description = "Runs below this one, at any depth"),
        ("conversation_id" = Option<String>, Query, description = "Runs of this conversation, its first one included"),
        ("artifact_type" = Option<String>, Query, description = "`FILE` or `PULL_REQUEST`"),
        ("q" = Option<String>, Query, description = "Part of the title or the prompt, in any case"),
        ("created_after" = Option<String>, Query, description = "RFC 3339"),
        ("created_before" = Option<String>, Query, description = "RFC 3339"),
        ("updated_after" = Option<String>, Query, description = "RFC 3339"),
        ("metadata[key]" = Option<String>, Query, description = "At most 5, all of which must hold")),
    responses((status = 200, body = RunList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(in crate::http) async fn list_runs(
    caller: Tenant,
    State(app): State<AppState>,
    mut params: Params,
) -> Result<(Ignored, Json<RunList>), ApiError> {
    let limit = params.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = params.take("cursor");
    let filter = filter(&mut params)?;
    let (core, scope) = (&app.core, caller.scope());
    let page = runs::list(core, scope, &filter, limit, cursor.as_deref()).await?;
    let found = runs::artifacts_of(core, scope, &page.runs).await;
    let mut artifacts = found.map_err(|error| ApiError::store(error, "run"))?;
    let mut item = |run: runs::Run| {
        let of_run = artifacts.remove(&run.id).unwrap_or_default();
        view::item(run, of_run, Vec::new(), core.now())
    };
    let runs: Vec<RunItem> = page.runs.into_iter().map(&mut item).collect::<Result<_, _>>()?;
    let page_info =
        PageInfo { has_next_page: page.next_cursor.is_some(), next_cursor: page.next_cursor };
    Ok((Ignored::from(params), Json(RunList { runs, page_info })))
}

fn filter(params: &mut Params) -> Result<RunFilter, ApiError> {
    let ms = |time: Option<Timestamp>| time.map(Timestamp::as_ms);
    Ok(RunFilter {
        states: params
            .take_all("state")
            .iter()
            .map(|text| state(text))
            .collect::<Result<_, _>>()?,
        name: params.text("name")?,
        model_id: params.text("model_id")?,
        source: params.text("source")?,
        environment_id: params.take("environment_id").map(|id| environment(&id)).transpose()?,
        ancestor_run_id: params.read::<RunId>("ancestor_run_id")?,
        conversation_id: params.read::<RunId>("conversation_id")?,
        created_after: ms(params.read("created_after")?),
        created_before: ms(params.read("created_before")?),
        updated_after: ms(params.read("updated_after")?),
        artifact_type: params.text("artifact_type")?,
        text: params.text("q")?,
        metadata: metadata(params)?,
        sort_by: choice(params, "sort_by", &SORTS)?,
        ascending: choice(params, "sort_order", &[("desc", false), ("asc", true)])?,
    })
}

const SORTS: [(&str, SortBy); 4] = [
    ("updated_at", SortBy::UpdatedAt),
    ("created_at", SortBy::CreatedAt),
    ("title", SortBy::Title),
    ("agent", SortBy::Agent),
];

/// One of these words; the first without one.
fn choice<T: Copy>(params: &mut Params, name: &str, words: &[(&str, T)]) -> Result<T, ApiError> {
    let given = params.take(name);
    let given = given.as_deref().unwrap_or(words[0].0);
    words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        ApiError::invalid(name, format!("must be one of {}", known.join(", ")))
    })
}

fn state(text: &str) -> Result<RunState, ApiError> {
    // The client's own alias (oz-api.md 1.11).
    let text = if text == "IN_PROGRESS" { "INPROGRESS" } else { text };
    RunState::from_str(text).map_err(|_| {
        let known = RunState::ALL.map(RunState::as_str).join(", ");
        ApiError::invalid("state", format!("must be one of {known}"))
    })
}

fn environment(id: &str) -> Result<Option<EnvironmentId>, ApiError> {
    if id == NO_ENVIRONMENT {
        return Ok(None);
    }
    let read = id.parse().map_err(|error: protocol::ids::BadId| {
        ApiError::invalid("environment_id", error.to_string())
    });
    read.map(Some)
}

fn metadata(params: &mut Params) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
    let pairs = params.take_map("metadata");
    if pairs.len() > MAX_METADATA {
        return Err(ApiError::invalid("metadata", format!("at most {MAX_METADATA} entries")));
    }
    for (key, value) in &pairs {
        let field = format!("metadata[{key}]");
        forms::text(&field, key, MAX_LABEL_BYTES)?;
        forms::text(&field, value, 2 * MAX_LABEL_BYTES)?;
    }
    Ok(pairs.into_iter().collect())
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::BadCursor => {
                Self::invalid("cursor", "is not one this listing gave; leave it out to begin anew")
            }
            ListError::Store(error) => Self::store(error, "run"),
        }
    }
}
