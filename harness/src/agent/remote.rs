//! A model behind an endpoint, in any dialect: ask, stream, and ask again when that can help.

use std::{path::Path, time::Duration};

use protocol::{event::Event, failure::FailureReason, secret::Secret, spec::HttpEndpoint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::{
    agent::{
        conversation::{Message, Reply},
        sse::Assembly,
        text::Running,
        tool::Tool,
        wire::Wire,
    },
    failure::{ApiError, Failure},
    feed::Feed,
    tls,
};

/// How long to connect; then the next try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an endpoint may be silent, before its answer and within it; then the next try.
const IDLE_TIMEOUT: Duration = Duration::from_mins(3);

/// Most bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// How often and how long one answer is asked for again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Tries in all; then the last failure stands.
    tries: u32,
    /// The first wait; each later one is twice as long, up to `longest`.
    first: Duration,
    /// An endpoint that asks for a longer wait than this fails the run at once.
    longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 5, first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    fn wait(&self, tried: u32, asked: Option<Duration>) -> Option<Duration> {
        if tried >= self.tries || asked.is_some_and(|asked| asked > self.longest) {
            return None;
        }
        let grown = self.first.saturating_mul(1 << (tried - 1).min(16)).min(self.longest);
        // Between half and all of it, so that many agents do not knock at once.
        let half = grown / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = getrandom::u64().map_or(half, |random| Duration::from_micros(random % micros));
        Some(asked.unwrap_or(half + jitter))
    }
}

pub(crate) struct Remote {
    wire: Wire,
    client: reqwest::Client,
    url: reqwest::Url,
    model: String,
    retry: Retry,
    /// What an endpoint may repeat in its complaints, and nobody may read there.
    secrets: Vec<Secret>,
}

/// One try that did not give an answer.
struct Miss {
    failure: Failure,
    /// Another try may help.
    again: bool,
    retry_after: Option<Duration>,
}

impl Remote {
    pub(super) fn new(
        wire: Wire,
        endpoint: &HttpEndpoint,
        extra_ca: Option<&str>,
    ) -> Result<Self, Failure> {
        let refused = |what: String| Failure::new(FailureReason::AgentInvocation, what);
        let url = format!("{}{}", endpoint.base_url.trim_end_matches('/'), wire.path());
        let url = reqwest::Url::parse(&url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                refused("the model's base URL is no http or https address".to_owned())
            })?;
        let mut sent = HeaderMap::new();
        for (name, value) in wire.headers(endpoint) {
            let name_bytes = HeaderName::try_from(name.as_str());
            let (Ok(name), Ok(mut value)) = (name_bytes, HeaderValue::try_from(value)) else {
                return Err(refused(format!("the value for the header {name:?} is no header")));
            };
            value.set_sensitive(true);
            sent.insert(name, value);
        }
        let secrets = endpoint.api_key.iter().chain(endpoint.headers.values()).cloned().collect();
        let tls = tls::client_config(extra_ca.map(Path::new))
            .map_err(|error| refused(format!("certificate authorities: {error}")))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .default_headers(sent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            // A redirect could carry the key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ozma/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refused(format!("HTTP client: {error}")))?;
        let model = endpoint.model.clone();
        Ok(Self { wire, client, url, model, retry: Retry::default(), secrets })
    }

    pub(super) fn name(&self) -> &str {
        &self.model
    }

    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    pub(super) async fn reply(
        &mut self,
        conversation: &[Message],
        tools: &[Tool],
        feed: &Feed,
    ) -> Result<Reply, Failure> {
        let body = self.wire.body(&self.model, conversation, tools).to_string();
        let mut tried = 0;
        loop {
            tried += 1;
            let mut miss = match self.ask(body.clone(), feed).await {
                Ok(reply) => return Ok(reply),
                Err(miss) => miss,
            };
            for secret in self.secrets.iter().filter(|secret| !secret.expose().is_empty()) {
                miss.failure.message = miss.failure.message.replace(secret.expose(), "[secret]");
            }
            let wait = self.retry.wait(tried, miss.retry_after).filter(|_| miss.again);
            let Some(wait) = wait else { return Err(miss.failure) };
            let wait_ms = u64::try_from(wait.as_millis()).ok();
            let message = miss.failure.message;
            feed.send(Event::ModelRetry { attempt: tried, wait_ms, message }).await;
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask(&self, body: String, feed: &Feed) -> Result<Reply, Miss> {
        let request = self
            .client
            .post(self.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(reqwest::header::ACCEPT, "text/event-stream")
            .body(body);
        let mut response = request.send().await.map_err(|error| lost(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let mut assembly = Assembly::new(self.wire);
        let mut running = Running::new(feed);
        while !assembly.done() {
            let Some(bytes) = response.chunk().await.map_err(|error| lost(&error))? else { break };
            let text = assembly.push(&bytes).map_err(Miss::of_stream)?;
            running.push(&text).await;
        }
        running.show().await;
        assembly.finish().map_err(Miss::of_stream)
    }
}

impl Miss {
    fn of_stream(failure: Failure) -> Self {
        let again = failure.reason == FailureReason::NetworkError
            || failure.reason == FailureReason::RateLimit;
        Self { failure, again, retry_after: None }
    }
}

/// The endpoint could not be reached, or broke off. The address is the environment's own and may be told,
/// but nothing else of the request.
fn lost(error: &reqwest::Error) -> Miss {
    let mut message = "the model's endpoint could not be reached".to_owned();
    if !error.is_connect() {
        "the model's endpoint broke off".clone_into(&mut message);
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        cause = error.source();
        if cause.is_none() {
            message = format!("{message}: {error}");
        }
    }
    if error.is_timeout() {
        message.push_str(" (no answer in time)");
    }
    let failure = Failure::new(FailureReason::NetworkError, message);
    Miss { failure, again: true, retry_after: None }
}

async fn refusal(mut response: reqwest::Response) -> Miss {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<f64>().ok())
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    body.truncate(MAX_ERROR_BYTES);
    let mut failure = ApiError::read(&String::from_utf8_lossy(&body)).failure(status);
    failure.retry_after = retry_after;
    let again = matches!(failure.reason, FailureReason::RateLimit | FailureReason::NetworkError);
    Miss { failure, again, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let retry = Retry::default();
        let first = retry.wait(1, None).unwrap();
        assert!(first >= Duration::from_millis(250) && first <= Duration::from_millis(500));
        assert!(retry.wait(4, None).unwrap() >= Duration::from_secs(2));
        assert_eq!(retry.wait(5, None), None);
        assert_eq!(retry.wait(1, Some(Duration::from_secs(2))), Some(Duration::from_secs(2)));
        assert_eq!(retry.wait(1, Some(Duration::from_hours(1))), None);
    }
}
