//! A tenant: the HTTP API as any program would use it.

use std::time::Duration;

use protocol::{
    api::{events::EventPage, events::EventView, runs::RunItem},
    event::{Event, Phase},
    run::RunState,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use test_support::{
    http,
    wait::{eventually, eventually_within},
};

/// A run in a container takes seconds; on a busy machine with two cores, many.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Clone)]
pub(crate) struct Tenant {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Tenant {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        Self { http: http::client(), url: url.to_owned(), token: token.to_owned() }
    }

    /// The plane's root.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request to `path` below `/api/v1`, whatever the answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        let mut request = self
            .http
            .request(method, format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, None).await
    }

    /// Creates an environment, and gives its id.
    pub(crate) async fn environment(&self, body: &Value) -> String {
        let created = self.json(self.send(Method::POST, "/environments", Some(body)).await).await;
        created["environment_id"].as_str().unwrap().to_owned()
    }

    /// An environment that runs `command` in `image`, with `more` laid over it.
    pub(crate) async fn command(&self, image: &str, command: &str, more: Value) -> String {
        let mut body = json!({
            "name": "test", "docker_image": image,
            "harness": {"type": "command", "command": command},
        });
        let Value::Object(more) = more else { panic!("settings are an object") };
        body.as_object_mut().unwrap().extend(more);
        self.environment(&body).await
    }

    /// Asks for a run, and gives its id.
    pub(crate) async fn submit(&self, environment: &str, prompt: &str) -> String {
        let body = json!({"prompt": prompt, "config": {"environment_id": environment}});
        let created = self.json(self.send(Method::POST, "/agent/runs", Some(&body)).await).await;
        created["run_id"].as_str().unwrap().to_owned()
    }

    /// Asks for the run to stop. While it is being handed over that is refused with 409, for a moment.
    pub(crate) async fn cancel(&self, run: &str) {
        let path = format!("/agent/runs/{run}/cancel");
        eventually("the cancel is taken", || async {
            let answer = self.send(Method::POST, &path, None).await;
            let status = answer.status();
            assert!(status.is_success() || status == 409, "cancel: {:?}", answer.text().await);
            status.is_success().then_some(())
        })
        .await;
    }

    pub(crate) async fn run(&self, run: &str) -> RunItem {
        let answer = self.get(&format!("/agent/runs/{run}")).await;
        serde_json::from_value(self.json(answer).await).unwrap()
    }

    /// Waits until `pick` takes the run.
    pub(crate) async fn until(
        &self,
        run: &str,
        what: &str,
        pick: impl Fn(&RunItem) -> bool,
    ) -> RunItem {
        eventually_within(PATIENCE, what, || async {
            Some(self.run(run).await).filter(|item| pick(item))
        })
        .await
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self, run: &str) -> RunItem {
        self.until(run, "the run ends", |item| item.state.is_terminal()).await
    }

    /// Waits for the end, which must be this one.
    pub(crate) async fn ended_as(&self, run: &str, state: RunState) -> RunItem {
        let item = self.ended(run).await;
        if item.state != state {
            let told: Vec<String> = self
                .events(run)
                .await
                .iter()
                .map(|event| format!("{} {} {}\n", event.seq, event.kind, event.data))
                .collect();
            panic!("expected {state}, got {item:?} after\n{}", told.concat());
        }
        item
    }

    /// Every event so far. Their numbers must follow each other from 1.
    pub(crate) async fn events(&self, run: &str) -> Vec<EventView> {
        let mut all: Vec<EventView> = Vec::new();
        loop {
            let after = all.len();
            let path = format!("/agent/runs/{run}/events?after={after}&limit=1000");
            let page: EventPage =
                serde_json::from_value(self.json(self.get(&path).await).await).unwrap();
            for (expected, event) in (after as u64 + 1..).zip(&page.events) {
                assert_eq!(event.seq, expected, "a gap or a double in the events of {run}");
            }
            all.extend(page.events);
            if !page.page_info.has_next_page {
                return all;
            }
        }
    }

    /// What the provider printed on either stream, put together; bytes that are no UTF-8 are left out.
    pub(crate) async fn output(&self, run: &str) -> String {
        output(&self.events(run).await)
    }

    /// Waits until the provider has printed `text`.
    pub(crate) async fn until_printed(&self, run: &str, text: &str) {
        eventually_within(PATIENCE, &format!("the run prints {text:?}"), || async {
            self.output(run).await.contains(text).then_some(())
        })
        .await;
    }

    pub(crate) async fn artifact(&self, uid: &str) -> Vec<u8> {
        let answer = self.get(&format!("/agent/artifacts/{uid}/content")).await;
        assert!(answer.status().is_success(), "the artifact's content: {}", answer.status());
        answer.bytes().await.unwrap().to_vec()
    }

    async fn json(&self, answer: Response) -> Value {
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The provider's output in these events, one line of it a line.
pub(crate) fn output(events: &[EventView]) -> String {
    let mut all = String::new();
    for event in events.iter().filter_map(EventView::event) {
        if let Event::Output { phase: Phase::Provider, text: Some(text), partial, .. } = event {
            all.push_str(&text);
            if !partial {
                all.push('\n');
            }
        }
    }
    all
}
