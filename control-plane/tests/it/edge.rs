//! A whole plane on a port of its own, and a client that keeps whole answers.

use std::{future::pending, time::Duration};

use control_plane::{Config, Plane};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use secrecy::SecretString;
use serde_json::{Value, json};
use service::{clock::Clock, lifecycle::Lifecycle};
use tempfile::TempDir;

pub(crate) const ADMIN: &str = "the-admin-key";

/// A running plane. It must be [stopped](Self::stop), which proves that it can be.
pub(crate) struct Edge {
    pub(crate) plane: Plane,
    pub(crate) root: String,
    pub(crate) folder: TempDir,
    life: Lifecycle,
    client: reqwest::Client,
}

/// One whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text))
    }

    /// A good answer's body.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or_default())
    }

    /// Status, stable code and field of a problem.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let body = self.json();
        let problem: protocol::api::problem::Problem =
            serde_json::from_value(body.clone()).expect("every field of a problem is there");
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.trace_id.as_deref(), Some(self.header("x-request-id")));
        assert!(problem.instance.is_some() && problem.detail.is_some(), "{body}");
        (self.status, problem.code().to_owned(), problem.field.unwrap_or_default())
    }
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one with settings changed by `change`.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("data 100% #1?"),
            admin_key: Some(SecretString::from(ADMIN.to_owned())),
            default_image: Some("debian:bookworm-slim".to_owned()),
            ..Config::default()
        };
        change(&mut config);
        let life = Lifecycle::new();
        let plane = Plane::start(config, Clock::system(), life.clone()).await;
        let plane = plane.unwrap_or_else(|error| panic!("the plane starts: {error:#}"));
        let root = format!("http://{}", plane.local_addr());
        Self { plane, root, folder, life, client: test_support::http::client() }
    }

    /// A request with a token; none for an empty one.
    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.root));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("the plane answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("the answer ends");
        Answer { status, headers, text }
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, token)).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, token).json(body)).await
    }

    pub(crate) async fn put(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path, token).json(body)).await
    }

    pub(crate) async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path, token)).await
    }

    /// A run of `token` with this prompt; its id.
    pub(crate) async fn run(&self, token: &str, prompt: &str) -> String {
        let made = self.post(token, "/api/v1/agent/runs", &json!({"prompt": prompt})).await.ok();
        made["run_id"].as_str().expect("an id").to_owned()
    }

    /// An environment of `token`; its id.
    pub(crate) async fn environment(&self, token: &str, body: &Value) -> String {
        let made = self.post(token, "/api/v1/environments", body).await.ok();
        made["id"].as_str().expect("an id").to_owned()
    }

    /// A token that the admin issues.
    pub(crate) async fn issue(&self, kind: &str) -> String {
        let body = json!({"kind": kind, "label": "a test's"});
        let made = self.post(ADMIN, "/api/v1/tokens", &body).await.ok();
        made["token"].as_str().expect("a token").to_owned()
    }

    /// How many runs there are, as the admin sees them.
    pub(crate) async fn count_runs(&self) -> usize {
        let list = self.get(ADMIN, "/api/v1/agent/runs?limit=500").await.ok();
        list["runs"].as_array().expect("a list").len()
    }

    pub(crate) fn drain(&self) {
        self.life.drain();
    }

    /// Stops the plane.
    ///
    /// # Panics
    /// It does not finish what it began within the grace.
    pub(crate) async fn stop(self) {
        let grace = Duration::from_secs(20);
        self.life.stop(grace, pending()).await;
        assert!(!self.life.aborting().is_cancelled(), "the plane did not stop by itself");
    }
}
