//! Every refusal, in one envelope: problem+json (oz-api.md 1.1). The client never sees a cause; causes are
//! logged here, once.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::api::problem::{Problem, TYPE_PREFIX};

use crate::store::StoreError;

/// Why a request was not done. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request itself is wrong; `field` names the part, as a path.
    #[error("{rule}")]
    Invalid { field: Option<String>, rule: String },
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// Known, but not allowed.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Not there, or not the caller's: the two are not told apart.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// Something the body names is not there, or not the caller's.
    #[error("there is no such {what}, or it is not yours")]
    Unknown { field: &'static str, what: &'static str },
    /// The state forbids it for the moment; the same request may succeed later.
    #[error("{0}")]
    Conflict(&'static str),
    /// A conversation cannot go on now; `code` says why.
    #[error("{rule}")]
    Stuck { code: &'static str, rule: String, retryable: bool },
    #[error("{rule}")]
    Gone { rule: &'static str },
    /// It was there, and is kept no longer.
    #[error("{0}")]
    Expired(&'static str),
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// Well formed, and not possible in this version.
    #[error("{rule}")]
    Unsupported { field: String, rule: String },
    /// Too much at once.
    #[error("{0}")]
    Busy(String),
    /// The database or the dispatcher is away.
    #[error("the service is not available")]
    Unavailable(#[source] anyhow::Error),
    /// What is only read is still answered.
    #[error(
        "the plane's database has no disk space left: nothing is lost, and nothing new is taken until \
         there is room where it lives (data_dir, or PostgreSQL's disk)"
    )]
    Full(#[source] anyhow::Error),
    /// Our own mistake.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
    /// What a layer below the handlers answered.
    #[error("{}", .0.canonical_reason().unwrap_or("the request was refused"))]
    Status(StatusCode),
}

impl ApiError {
    pub(crate) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Invalid { field: Some(field.into()), rule: rule.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), rule: rule.into() }
    }

    /// The error of a store that was asked for one `what`.
    pub(crate) fn store(error: StoreError, what: &'static str) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound(what),
            StoreError::Conflict => Self::Conflict("somebody else changed it just now; try again"),
            StoreError::Unavailable(_) => Self::Unavailable(error.into()),
            StoreError::Full(_) => Self::Full(error.into()),
            StoreError::Illegal(_) | StoreError::Corrupt(_) => Self::Internal(error.into()),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// Status, stable code, title.
    fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Invalid { .. } => (S::BAD_REQUEST, "invalid_request", "Invalid request"),
            Self::Unauthenticated(_) => {
                (S::UNAUTHORIZED, "authentication_required", "Authentication required")
            }
            Self::Forbidden(_) => (S::FORBIDDEN, "not_authorized", "Not authorized"),
            Self::NotFound(_) | Self::Unknown { .. } => {
                (S::NOT_FOUND, "resource_not_found", "Resource not found")
            }
            Self::Conflict(_) => (S::CONFLICT, "conflict", "Conflict"),
            Self::Stuck { code, .. } => (S::CONFLICT, code, "Conflict"),
            Self::Gone { .. } => (S::BAD_REQUEST, "invalid_request", "Invalid request"),
            Self::Expired(_) => (S::GONE, "resource_not_found", "No longer kept"),
            Self::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "invalid_request", "Body too large"),
            Self::Unsupported { .. } => {
                (S::UNPROCESSABLE_ENTITY, "operation_not_supported", "Not supported")
            }
            Self::Busy(_) => (S::TOO_MANY_REQUESTS, "resource_unavailable", "Too much at once"),
            Self::Unavailable(_) => {
                (S::SERVICE_UNAVAILABLE, "resource_unavailable", "Not available")
            }
            Self::Full(_) => (S::INSUFFICIENT_STORAGE, "resource_unavailable", "No room"),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal_error", "Internal error"),
            Self::Status(status) => (*status, code_of(*status), title_of(*status)),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::Invalid { field, .. } => field.clone(),
            Self::Unknown { field, .. } => Some((*field).to_owned()),
            Self::Unsupported { field, .. } => Some(field.clone()),
            _ => None,
        }
    }

    fn problem(&self) -> Problem {
        let (status, code, title) = self.parts();
        let field = self.field();
        let detail = match &field {
            Some(field) => format!("{field}: {self}"),
            None => self.to_string(),
        };
        let retryable = matches!(
            self,
            Self::Conflict(_)
                | Self::Stuck { retryable: true, .. }
                | Self::Busy(_)
                | Self::Unavailable(_)
                | Self::Full(_)
                | Self::Internal(_)
        );
        Problem {
            kind: format!("{TYPE_PREFIX}{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            error: format!("{title} ({detail})"),
            detail: Some(detail),
            instance: None,
            retryable: Some(retryable),
            trace_id: None,
            field,
        }
    }
}

fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "resource_not_found",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "resource_unavailable",
        status if status.is_server_error() => "internal_error",
        _ => "invalid_request",
    }
}

fn title_of(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Refused")
}

impl IntoResponse for ApiError {
    /// The answer without body: [`envelope`](super::envelope) writes it, when it knows path and request id.
    fn into_response(self) -> Response {
        if let Self::Internal(cause) | Self::Unavailable(cause) | Self::Full(cause) = &self {
            tracing::error!(error = format!("{cause:#}"), "{self}");
        }
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Unauthenticated(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Busy(_) | Self::Unavailable(_) | Self::Full(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self.problem());
        response
    }
}
