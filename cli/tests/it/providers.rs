//! The real command lines in real containers, through a plane and a worker, against the model of the tests. Their
//! images are made by `scripts/test.sh`, or with `ozma harness build claude codex opencode gemini`.

mod ends;
mod failures;
mod headers;
mod kept;
mod planted;
mod registry;
mod works;

use protocol::{
    api::{artifacts::ArtifactItem, events::EventView, runs::RunItem},
    event::Event,
    run::RunState,
    spec::ProviderKind,
};
use serde_json::{Value, json};
use test_support::{image, model::Model};

use crate::{client::Tenant, images, stack::Stack};

/// Runs of one test at a time: a command line takes a processor for seconds to start.
const CAPACITY: &str = "3";

/// The credential in the environment's values.
const KEY: &str = "key-of-the-environment";

/// A plane, a worker, and a tenant whose runs are all this provider's.
struct Rig {
    stack: Stack,
    tenant: Tenant,
    provider: ProviderKind,
}

impl Rig {
    async fn start(provider: ProviderKind) -> Self {
        let name = provider.as_str();
        assert!(
            provider == ProviderKind::Agent
                || image::exists(&format!("ozma-harness-{name}:latest")),
            "the harness image of {name} is missing: scripts/test.sh or `ozma harness build {name}` makes it"
        );
        let stack = Stack::start_with(&[("OZ_WORKER_CAPACITY", CAPACITY)]).await;
        let tenant = stack.tenant("tenant-a");
        Self { stack, tenant, provider }
    }

    /// Begins a run whose model plays `scenario`, in the shop's repository, with `more` laid over the environment.
    async fn begin(&self, scenario: &'static str, more: Value) -> Begun<'_> {
        let model = Model::start_on(&format!("{}:0", images::host())).await;
        let environment = self.environment(&model, scenario, more).await;
        let run = self.tenant.submit(&environment, "do as the model says").await;
        Begun { rig: self, model, scenario, run }
    }

    async fn environment(&self, model: &Model, scenario: &str, more: Value) -> String {
        let mut body = json!({
            "name": scenario,
            "docker_image": images::workshop(),
            "repos": ["/srv/shop.git"],
            "env_vars": endpoint(self.provider, model, scenario),
            "harness": {"type": self.provider.as_str(), "model_id": "test-model"},
        });
        merge(&mut body, more);
        self.tenant.environment(&body).await
    }

    async fn finish(self) {
        self.stack.finish().await;
    }
}

/// The provider's own names for its endpoint.
fn endpoint(provider: ProviderKind, model: &Model, scenario: &str) -> Value {
    match provider {
        ProviderKind::Claude => {
            json!({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": model.root(scenario)})
        }
        ProviderKind::Gemini => {
            json!({"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": model.root(scenario)})
        }
        _ => json!({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.base_url(scenario)}),
    }
}

fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// A run that is on its way.
struct Begun<'a> {
    rig: &'a Rig,
    model: Model,
    scenario: &'static str,
    run: String,
}

impl Begun<'_> {
    /// Its end, which must be this one.
    async fn ended_as(&self, state: RunState) -> Ended {
        let tenant = &self.rig.tenant;
        let item = tenant.ended_as(&self.run, state).await;
        let events = tenant.events(&self.run).await.iter().filter_map(EventView::event).collect();
        let mut files = Vec::new();
        for artifact in &item.artifacts {
            let ArtifactItem::File { data, .. } = artifact else { continue };
            let content = tenant.artifact(data.artifact_uid.as_str()).await;
            files.push((data.filename.clone(), String::from_utf8(content).unwrap()));
        }
        let what = format!("{} {}", self.rig.provider.as_str(), self.scenario);
        Ended { what, item, events, files }
    }
}

/// Everything a run has left.
struct Ended {
    /// For messages: which run it was.
    what: String,
    item: RunItem,
    events: Vec<Event>,
    /// Names and contents of its files.
    files: Vec<(String, String)>,
}

impl Ended {
    fn code(&self) -> &str {
        let message = self.item.status_message.as_ref();
        message.and_then(|message| message.error_code.as_deref()).unwrap_or("none")
    }

    fn has(&self, what: &str, pick: impl Fn(&Event) -> bool) {
        assert!(self.events.iter().any(pick), "{}: no {what} in {:#?}", self.what, self.events);
    }

    fn file(&self, end: &str) -> &str {
        let found = self.files.iter().find(|(name, _)| name.ends_with(end));
        let (_, content) =
            found.unwrap_or_else(|| panic!("{}: no *{end} in {:?}", self.what, self.files));
        content
    }

    fn answer(&self) -> &str {
        let answer = self.events.iter().find_map(|event| match event {
            Event::Answer { text, .. } => Some(text.as_str()),
            _ => None,
        });
        answer.unwrap_or_else(|| panic!("{}: no answer in {:#?}", self.what, self.events))
    }
}
