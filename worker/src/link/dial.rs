//! Reaching the plane: the bearer token, TLS with the roots built in.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use protocol::{ids::WorkerId, limits::MAX_FRAME_BYTES};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

use crate::address::address;

/// For the connection, TLS and the upgrade together.
const WITHIN: Duration = Duration::from_secs(15);

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// 401 or 403: trying again soon would not help.
    #[error(
        "the plane answered {0}: the token must be its admin key or one of its worker tokens (OZ_WORKER_TOKEN, token_file)"
    )]
    Refused(StatusCode),
    #[error("the plane answered {0}; is plane_url its root?")]
    Answered(StatusCode),
    #[error("could not reach the plane")]
    Unreachable(#[source] tungstenite::Error),
    #[error("the plane did not answer within {} s", WITHIN.as_secs())]
    Slow,
    #[error("the address or token cannot be used")]
    Unusable(#[source] anyhow::Error),
}

pub(super) async fn dial(
    plane_url: &str,
    worker_id: &WorkerId,
    token: &SecretString,
) -> Result<Socket, DialError> {
    let request = address(plane_url, worker_id).and_then(|address| {
        let mut request = address.into_client_request()?;
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut bearer = HeaderValue::from_str(&bearer).context("the token fits no header")?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        Ok(request)
    });
    let request = request.map_err(DialError::Unusable)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .read_buffer_size(16 << 10)
        .write_buffer_size(0);
    let connector = tls().map_err(DialError::Unusable)?;
    let dialled = connect_async_tls_with_config(request, Some(config), true, Some(connector));
    match tokio::time::timeout(WITHIN, dialled).await {
        Err(_) => Err(DialError::Slow),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(answer))) => Err(match answer.status() {
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                DialError::Refused(status)
            }
            status => DialError::Answered(status),
        }),
        Ok(Err(error)) => Err(DialError::Unreachable(error)),
    }
}

/// With ring named, since a build that links two providers has no default one.
fn tls() -> anyhow::Result<Connector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set TLS up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}
