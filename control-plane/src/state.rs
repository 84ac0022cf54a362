//! What handlers share: handles, and choices of the operator. It decides nothing.

use std::{ops::Deref, sync::Arc};

use axum::body::Bytes;

use crate::{core::Core, entry::Auth, metrics::Metrics, streams::Streams};

/// What handlers share.
#[derive(Debug)]
pub struct App {
    pub(crate) core: Arc<Core>,
    pub(crate) auth: Auth,
    pub(crate) metrics: Metrics,
    pub(crate) streams: Streams,
    /// The OpenAPI document, written once.
    pub(crate) openapi: Bytes,
    pub(crate) max_body_bytes: usize,
    /// The root of the API as clients reach it, if the operator said so.
    pub(crate) public_url: Option<String>,
}

/// A handle to [`App`].
#[derive(Debug, Clone)]
pub struct AppState(pub(crate) Arc<App>);

impl Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}
