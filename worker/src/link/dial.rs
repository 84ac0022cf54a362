//! Reaching the plane: its address, the bearer token, TLS with the roots built in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
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

/// For the connection, TLS and the upgrade together.
const WITHIN: Duration = Duration::from_secs(15);

const PATH: &str = "/api/v1/selfhosted/worker/ws";

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

/// The address of the link below the plane's root.
///
/// # Errors
/// The text is no address of a plane.
pub(crate) fn address(plane_url: &str, worker_id: &WorkerId) -> anyhow::Result<String> {
    let url = plane_url.trim().trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").context("must begin with http:// or https://")?;
    let scheme = match scheme {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        other => bail!("must begin with http:// or https://, not {other}://"),
    };
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#']) {
        bail!("must be scheme://host[:port], without a query");
    }
    if rest.contains('@') {
        bail!("must hold no credentials; they belong into token or token_file");
    }
    let path = if rest.ends_with("/worker/ws") { "" } else { PATH };
    Ok(format!("{scheme}://{rest}{path}?worker_id={}", percent_encoded(worker_id.as_str())))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_below_the_planes_root() {
        let id: WorkerId = "my wörker".parse().unwrap();
        for (root, link) in [
            ("http://h:8080", "ws://h:8080/api/v1/selfhosted/worker/ws?worker_id=my%20w%C3%B6rker"),
            ("https://h/", "wss://h/api/v1/selfhosted/worker/ws?worker_id=my%20w%C3%B6rker"),
            ("ws://h/x/worker/ws", "ws://h/x/worker/ws?worker_id=my%20w%C3%B6rker"),
        ] {
            assert_eq!(address(root, &id).unwrap(), link);
        }
        for bad in ["h:8080", "ftp://h", "http://", "http://user:pass@h", "http://h?x"] {
            assert!(address(bad, &id).is_err(), "{bad} was taken");
        }
    }
}
