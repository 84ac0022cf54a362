//! A client of the plane's HTTP API. Errors come out as [`Failure`]s that say what to do next.

pub(crate) mod problem;
pub(crate) mod sse;

use std::{fmt::Write, sync::Arc, time::Duration};

use protocol::secret::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{connection::Target, failure::Failure};

/// How long a plane may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a plane may take for an answer that is no stream.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Largest answer that is read, in bytes; a longer one is an error. An artifact with some room.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// One plane, as one caller.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Secret,
}

impl Client {
    /// # Errors
    /// The TLS settings are refused, which would be a fault of the build.
    pub(crate) fn new(target: &Target) -> Result<Self, Failure> {
        Ok(Self { http: http(&target.url)?, url: target.url.clone(), token: target.token.clone() })
    }

    /// The plane's root.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `GET path`, `path` below the root.
    ///
    /// # Errors
    /// The plane does not answer, refuses, or answers what is not understood; likewise the others.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.read(self.request(Method::GET, path).query(query)).await
    }

    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.read(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` with an idempotency key, so that it may be sent again when no answer came.
    pub(crate) async fn post_once<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.read(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    /// `POST` without a body; the answer's status and nothing else.
    pub(crate) async fn post_empty(&self, path: &str) -> Result<StatusCode, Failure> {
        let request = self.request(Method::POST, path).header(header::CONTENT_LENGTH, 0);
        Ok(self.send(request.timeout(ANSWER_TIMEOUT)).await?.status())
    }

    pub(crate) async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.read(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_TIMEOUT)).await?;
        Ok(())
    }

    /// The bytes of `GET path`, at most [`MAX_ANSWER_BYTES`].
    pub(crate) async fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.body(self.request(Method::GET, path)).await
    }

    /// The body of `GET path` as it comes; whoever reads it sets the bound.
    pub(crate) async fn download(&self, path: &str) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path)).await
    }

    /// The events of a run from after `last_id` on, as they come.
    pub(crate) async fn events(&self, path: &str, last_id: u64) -> Result<Response, Failure> {
        let mut request =
            self.request(Method::GET, path).header(header::ACCEPT, "text/event-stream");
        if last_id > 0 {
            request = request.header("Last-Event-ID", last_id);
        }
        self.send(request).await
    }

    /// Whether a plane answers `/health` well, whatever the token.
    pub(crate) async fn healthy(&self, patience: Duration) -> bool {
        let request = self.http.get(format!("{}/health", self.url)).timeout(patience);
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(self.token.expose())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = bounded(answer, problem::MAX_BYTES).await.unwrap_or_default();
        Err(problem::failure(status, &body, &self.url))
    }

    async fn body(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let answer = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        bounded(answer, MAX_ANSWER_BYTES).await.map_err(|error| {
            Failure::platform(format!("the answer of {} broke off: {error}", self.url))
        })
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let body = self.body(request).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::platform(format!("the answer of {} is not understood: {error}", self.url))
                .hint("is it an Ozma plane, and of this version? `ozma doctor` looks")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_connect() {
            "no plane answers"
        } else if error.is_timeout() {
            "the plane takes too long to answer"
        } else {
            "the plane cannot be talked to"
        };
        // reqwest's own text repeats the address; its causes say what happened.
        let cause = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::platform(format!("{why} at {}{cause}", self.url))
            .hint("start one with `ozma up`, or say where it is with --url")
    }
}

async fn bounded(mut answer: Response, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        anyhow::ensure!(body.len() + chunk.len() <= max, "it is longer than {max} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A client of ours, whoever it talks to: ring for TLS, the web's roots built in.
///
/// # Errors
/// The TLS settings are refused, which would be a fault of the build.
pub(crate) fn builder() -> Result<reqwest::ClientBuilder, Failure> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| Failure::platform(format!("cannot set up TLS: {error}")))?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls))
}

fn http(url: &str) -> Result<reqwest::Client, Failure> {
    let mut builder = builder()?
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("ozma/", env!("CARGO_PKG_VERSION")))
        // A token goes to the plane it is for, and nowhere a redirect points to.
        .redirect(reqwest::redirect::Policy::none());
    if loopback(url) {
        // A proxy cannot reach this machine's loopback.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Failure::platform(format!("cannot set up HTTP: {error}")))
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            segment.push(char::from(byte));
        } else {
            // A dot too: two of them would be a step up.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

/// Whether an address is on this machine.
pub(crate) fn loopback(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    })
}
