//! A run's events: as they come (server-sent events), or as a page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use protocol::{
    api::{
        events::{EventPage, EventView},
        lists::PageInfo,
        problem::Problem,
        time::Timestamp,
    },
    ids::RunId,
};

use super::{
    auth::Tenant,
    error::ApiError,
    extract::{Ignored, Json, Path},
    params::Params,
};
use crate::{
    feed,
    scope::Scope,
    state::AppState,
    store::{RunEvent, StoreError},
    streams::Following,
};

const DEFAULT_LIMIT: u32 = 200;

pub(super) const EXPIRED: ApiError =
    ApiError::Expired("the events of this run are not kept any more; the run itself still is");

/// A comment this often tells both ends that a quiet stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Read a run's events. With `Accept: text/event-stream` they come as they happen, and the stream ends after the
/// last one; otherwise they come as a page
#[utoipa::path(get, path = "/agent/runs/{run_id}/events", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path),
        ("Last-Event-ID" = Option<u64>, Header, description = "Begin after this event; wins over `after`"),
        ("after" = Option<u64>, Query, description = "Begin after this event; 0 or nothing: from the first"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before; pages only"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 200 without it; pages only")),
    responses((status = 200, content(
        (EventPage = "application/json"), (EventView = "text/event-stream"))),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "They are not kept any more"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn run_events(
    caller: Tenant,
    State(app): State<AppState>,
    Path(run): Path<RunId>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, ApiError> {
    let after = after(&headers, &mut params)?;
    let missing = |error| ApiError::store(error, "run");
    if wants_stream(&headers) {
        let scope = caller.scope().clone();
        let following = begin(&app, &scope)?;
        let first = feed::events_page(&app.core, &scope, &run, after, 1).await.map_err(missing)?;
        if first.gone {
            return Err(EXPIRED);
        }
        let events =
            feed::follow(Arc::clone(&app.core), scope, run, after).await.map_err(missing)?;
        let lines = lines(events).map(move |line| {
            // It is counted for as long as somebody listens.
            let _ = &following;
            line
        });
        let stream = Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
        // Proxies that buffer would hold events back.
        return Ok(([("x-accel-buffering", "no")], stream).into_response());
    }
    let limit = params.limit(DEFAULT_LIMIT, feed::MAX_PAGE)?;
    let page = feed::events_page(&app.core, caller.scope(), &run, after, limit).await;
    let page = page.map_err(missing)?;
    if page.gone {
        return Err(EXPIRED);
    }
    let page = view_page(page, after);
    Ok((Ignored::from(params), Json(page)).into_response())
}

/// One more of what a tenant may read so many of at a time.
pub(super) fn begin(app: &AppState, scope: &Scope) -> Result<Following, ApiError> {
    app.streams.begin(scope.owner()).ok_or_else(|| {
        ApiError::Busy(format!("{} streams are followed already", app.streams.most()))
    })
}

/// Where to begin: the header a browser sends when it dials again, else the parameters.
pub(super) fn after(headers: &HeaderMap, params: &mut Params) -> Result<u64, ApiError> {
    let cursor = params.take("cursor");
    let after = params.read::<u64>("after")?;
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let (name, text) = match (header, &cursor) {
        (Some(text), _) if !text.is_empty() => ("Last-Event-ID", text),
        (_, Some(text)) => ("cursor", text.as_str()),
        _ => return Ok(after.unwrap_or(0)),
    };
    text.parse().map_err(|_| ApiError::invalid(name, "is not the number of an event"))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    accept.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/event-stream"))
}

pub(super) fn lines(
    batches: impl Stream<Item = Result<Vec<RunEvent>, StoreError>> + Send,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    batches.flat_map(|batch| {
        let events = batch.unwrap_or_else(|error| {
            // The stream ends here; the client dials again from the last event it has.
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "a stream broke off"
            );
            Vec::new()
        });
        stream::iter(events.into_iter().map(|event| Ok(line(event))))
    })
}

fn line(event: RunEvent) -> Event {
    let view = view(event);
    let json = serde_json::to_string(&view).expect("an event is plain data");
    // Line breaks outside of strings are blanks to JSON, and would end the field here.
    let json = json.replace(['\r', '\n'], " ");
    Event::default().id(view.seq.to_string()).event(view.kind).data(json)
}

pub(super) fn view(event: RunEvent) -> EventView {
    let RunEvent { seq, execution_id, at_ms, kind, data } = event;
    EventView { seq, at: Timestamp(at_ms), execution_id, kind, data }
}

fn view_page(page: feed::EventPage, after: u64) -> EventPage {
    let last = page.events.last().map_or(after, |event| event.seq);
    let next_cursor = (last > 0).then(|| last.to_string());
    EventPage {
        events: page.events.into_iter().map(view).collect(),
        page_info: PageInfo { has_next_page: page.more, next_cursor },
    }
}
