//! Reading a request's body within its bound.

use axum::body::Body;
use futures_util::StreamExt;

use super::error::ApiError;

/// How much of a body that is too large is read and thrown away, so that the caller has read our answer before
/// the connection closes. A body larger still finds it closed.
const DRAINED_BYTES: usize = 16 << 20;

/// The whole body.
///
/// # Errors
/// It is larger than `limit`, or broke off.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut parts = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0usize);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| ApiError::invalid("body", "broke off"))?;
        total = total.saturating_add(part.len());
        if total <= limit {
            bytes.extend_from_slice(&part);
        } else if total > limit.saturating_add(DRAINED_BYTES) {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if total > limit { Err(ApiError::TooLarge { limit }) } else { Ok(bytes) }
}
