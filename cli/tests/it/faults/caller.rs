//! A tenant that expects the plane to be away now and then, and asks again as a careful program does: with an
//! idempotency key, and from the last event it has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::api::{
    events::{EventPage, EventView},
    runs::{RunItem, RunList},
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use test_support::http;

use super::{PATIENCE, patiently};

/// For one request: a link that was black-holed answers never.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Caller {
    http: reqwest::Client,
    url: String,
    /// How often what was answered; 0 for no answer.
    seen: Arc<Mutex<BTreeMap<u16, u32>>>,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Accepted,
    /// The run had ended.
    TooLate,
}

impl Caller {
    /// `url` is the root of a plane, or of a front of several.
    pub(super) fn new(url: String) -> Self {
        Self { http: http::client(), url, seen: Arc::default() }
    }

    /// One request; no answer is `None`.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Response> {
        self.send(method, path, body, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<Response> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth("tenant-of-the-faults")
            .timeout(ANSWER_WITHIN);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.ok();
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        *self.seen.lock().unwrap().entry(status).or_default() += 1;
        answer
    }

    /// Asks until there is an answer with a body that says more than "not now".
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        let what = format!("{method} {path} is answered");
        patiently(PATIENCE, &what, || async {
            let answer = self.send(method.clone(), path, body, key).await?;
            let status = answer.status();
            let text = answer.text().await.ok()?;
            assert!(
                status != StatusCode::INTERNAL_SERVER_ERROR,
                "{method} {path}: {status} {text}"
            );
            let later = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::CONFLICT
                );
            (!later).then(|| (status, serde_json::from_str(&text).unwrap()))
        })
        .await
    }

    async fn granted(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Value {
        let (status, answer) = self.answer(method.clone(), path, body, key).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// An environment that runs `command` in `image`, with `more` laid over it.
    pub(super) async fn environment(&self, image: &str, command: &str, more: Value) -> String {
        let mut body = json!({
            "name": "faults", "docker_image": image,
            "harness": {"type": "command", "command": command},
        });
        let Value::Object(more) = more else { panic!("settings are an object") };
        body.as_object_mut().unwrap().extend(more);
        let made = self.granted(Method::POST, "/api/v1/environments", Some(&body), None).await;
        made["environment_id"].as_str().unwrap().to_owned()
    }

    /// Asks for one run, however often it has to, and gives its id.
    pub(super) async fn submit(&self, environment: &str, prompt: &str, key: &str) -> String {
        self.create(json!({"environment_id": environment}), prompt, key).await
    }

    /// The same for a run that only this worker may take.
    pub(super) async fn submit_to(
        &self,
        worker: &str,
        environment: &str,
        prompt: &str,
        key: &str,
    ) -> String {
        let config = json!({"environment_id": environment, "worker_host": worker});
        self.create(config, prompt, key).await
    }

    async fn create(&self, config: Value, prompt: &str, key: &str) -> String {
        let body = json!({"prompt": prompt, "config": config});
        let made = self.granted(Method::POST, "/api/v1/agent/runs", Some(&body), Some(key)).await;
        made["run_id"].as_str().unwrap().to_owned()
    }

    /// Asks for the run to stop until it is said that it will, or that it has ended.
    pub(super) async fn cancel(&self, run: &str) -> Wish {
        let path = format!("/api/v1/agent/runs/{run}/cancel");
        match self.answer(Method::POST, &path, None, None).await {
            (status, _) if status.is_success() => Wish::Accepted,
            (StatusCode::BAD_REQUEST, _) => Wish::TooLate,
            (status, answer) => panic!("cancel: {status} {answer}"),
        }
    }

    pub(super) async fn run(&self, run: &str) -> RunItem {
        let path = format!("/api/v1/agent/runs/{run}");
        serde_json::from_value(self.granted(Method::GET, &path, None, None).await).unwrap()
    }

    /// Waits until `pick` takes the run; a wait in vain tells how it stood and what had happened.
    pub(super) async fn until(
        &self,
        run: &str,
        what: &str,
        pick: impl Fn(&RunItem) -> bool,
    ) -> RunItem {
        let wanted = patiently(2 * PATIENCE, what, || async {
            Some(self.run(run).await).filter(|item| pick(item))
        });
        if let Ok(item) = tokio::time::timeout(PATIENCE, wanted).await {
            return item;
        }
        panic!("waited {PATIENCE:?} in vain: {what}; {}", self.told(run).await)
    }

    pub(super) async fn ended(&self, run: &str) -> RunItem {
        self.until(run, "the run ends", |item| item.state.is_terminal()).await
    }

    /// Waits until the provider has printed at least so much.
    pub(super) async fn until_printed(&self, run: &str, bytes: usize) {
        let length = |event: &EventView| event.data.get().len();
        patiently(PATIENCE, &format!("{run} prints"), || async {
            let events = self.events(run).await;
            let output = events.iter().filter(|event| event.kind == "output");
            (output.map(length).sum::<usize>() >= bytes).then_some(())
        })
        .await;
    }

    /// How a run stands and how it came there.
    pub(super) async fn told(&self, run: &str) -> String {
        let item = self.run(run).await;
        let told: Vec<String> = self
            .events(run)
            .await
            .iter()
            .filter(|event| event.kind != "output")
            .map(|event| format!("{} {} {} {}\n", event.seq, event.at, event.kind, event.data))
            .collect();
        format!("{run} is {}, attempts {:?}, after\n{}", item.state, item.attempts, told.concat())
    }

    /// Every event so far. Their numbers must follow each other from 1.
    pub(super) async fn events(&self, run: &str) -> Vec<EventView> {
        let mut all: Vec<EventView> = Vec::new();
        loop {
            let path = format!("/api/v1/agent/runs/{run}/events?after={}&limit=1000", all.len());
            let page = self.granted(Method::GET, &path, None, None).await;
            let page: EventPage = serde_json::from_value(page).unwrap();
            for (expected, event) in (all.len() as u64 + 1..).zip(&page.events) {
                assert_eq!(event.seq, expected, "a gap or a double in the events of {run}");
            }
            all.extend(page.events);
            if !page.page_info.has_next_page {
                return all;
            }
        }
    }

    /// The ids of all runs of this tenant.
    pub(super) async fn runs(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/agent/runs?limit=100{cursor}");
            let page = self.granted(Method::GET, &path, None, None).await;
            let page: RunList = serde_json::from_value(page).unwrap();
            all.extend(page.runs.iter().map(|item| item.run_id.to_string()));
            match page.page_info.next_cursor.filter(|_| page.page_info.has_next_page) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Follows a run as a browser does, to its end: dials again whenever the stream breaks, from the last number it
    /// has. The numbers and kinds of what came, as it came.
    pub(super) async fn follow(&self, run: &str) -> Vec<(u64, String)> {
        let mut seen = Vec::new();
        let followed = async {
            while !self.follow_once(run, &mut seen).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, followed).await;
        assert!(ended.is_ok(), "the stream of {run} does not end after {:?}", seen.last());
        seen
    }

    /// One connection's worth of it; whether it came to the end.
    async fn follow_once(&self, run: &str, seen: &mut Vec<(u64, String)>) -> bool {
        let last = seen.last().map_or(0, |(seq, _)| *seq);
        let Some(answer) = self.stream(run, last).await else { return false };
        let mut lines = Lines { answer, rest: Vec::new() };
        let (mut id, mut kind, mut ended) = (None, String::new(), false);
        while let Some(line) = lines.next().await {
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.parse().unwrap());
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                ended |= kind == "state" && ends(data);
            } else if let Some(id) = id.take_if(|_| line.is_empty()) {
                seen.push((id, std::mem::take(&mut kind)));
            }
        }
        ended
    }

    async fn stream(&self, run: &str, last: u64) -> Option<Response> {
        let url = format!("{}/api/v1/agent/runs/{run}/events", self.url);
        let request = self
            .http
            .get(url)
            .bearer_auth("tenant-of-the-faults")
            .header("Accept", "text/event-stream")
            .header("Last-Event-ID", last);
        let answer = tokio::time::timeout(ANSWER_WITHIN, request.send()).await.ok()?.ok()?;
        answer.status().is_success().then_some(answer)
    }

    /// The plane's own number of this name, from `/metrics`.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let path = "/metrics";
        patiently(PATIENCE, "the plane tells its numbers", || async {
            let text = self.ask(Method::GET, path, None).await?.text().await.ok()?;
            text.lines().find_map(|line| {
                line.strip_prefix("ozma_")?.strip_prefix(name)?.trim().parse().ok()
            })
        })
        .await
    }

    /// How often which status was answered, for the test's report.
    pub(super) fn seen(&self) -> BTreeMap<u16, u32> {
        self.seen.lock().unwrap().clone()
    }
}

/// Whether this `state` event is the run's last.
fn ends(data: &str) -> bool {
    let event: EventView = serde_json::from_str(data).unwrap();
    matches!(event.event(), Some(protocol::event::Event::State { state, .. }) if state.is_terminal())
}

struct Lines {
    answer: Response,
    rest: Vec<u8>,
}

impl Lines {
    /// The next whole line; `None` when the stream broke or says nothing for too long.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let chunk = tokio::time::timeout(2 * ANSWER_WITHIN, self.answer.chunk()).await;
            self.rest.extend_from_slice(&chunk.ok()?.ok()??);
        }
    }
}
