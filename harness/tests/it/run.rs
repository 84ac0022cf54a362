//! Running a launch and keeping what it said.

use std::collections::BTreeMap;

use protocol::{
    event::{Event, Exit},
    secret::Secret,
    sidecar::Launch,
    spec::{AgentBounds, Endpoint, HarnessSpec, HttpEndpoint, ProviderKind},
};
use tempfile::TempDir;
use test_support::wait::in_time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) struct Run {
    pub(crate) folder: TempDir,
    pub(crate) launch: Launch,
    pub(crate) cancel: CancellationToken,
}

impl Run {
    pub(crate) fn new(provider: ProviderKind) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().display().to_string();
        let launch = Launch {
            prompt: "the prompt".to_owned(),
            directory: path.clone(),
            state_directory: format!("{path}/state"),
            registry: true,
            session_directory: String::new(),
            env: BTreeMap::new(),
            harness: HarnessSpec { provider, ..HarnessSpec::default() },
        };
        Self { folder, launch, cancel: CancellationToken::new() }
    }

    pub(crate) fn command(line: &str) -> Self {
        let mut run = Self::new(ProviderKind::Command);
        run.launch.harness.command = Some(line.to_owned());
        run
    }

    pub(crate) fn scripted(turns: &str) -> Self {
        let mut run = Self::new(ProviderKind::Agent);
        let script = format!(r#"{{"name": "test", "turns": {turns}}}"#);
        run.launch.harness.endpoint = Some(Endpoint::Scripted { script });
        run
    }

    pub(crate) fn model(base_url: String) -> Self {
        let mut run = Self::new(ProviderKind::Agent);
        run.launch.harness.endpoint = Some(Endpoint::OpenaiChat(HttpEndpoint {
            base_url,
            api_key: Some(Secret::new("marked-key")),
            model: "test-model".to_owned(),
            ..HttpEndpoint::default()
        }));
        run
    }

    pub(crate) fn bounds(mut self, max_turns: u32, max_tokens: u64) -> Self {
        self.launch.harness.bounds = AgentBounds { max_turns, max_tokens };
        self
    }

    /// To its end.
    pub(crate) async fn finish(&self) -> (Vec<Event>, Exit) {
        self.watch(|_| {}).await
    }

    /// To its end, each event shown to `see`.
    pub(crate) async fn watch(&self, see: impl Fn(&Event)) -> (Vec<Event>, Exit) {
        let (sender, mut events) = mpsc::channel(1);
        let run = harness::run(self.launch.clone(), sender, self.cancel.clone());
        let keep = async {
            let mut kept = Vec::new();
            while let Some(event) = events.recv().await {
                see(&event);
                kept.push(event);
            }
            kept
        };
        let (exit, kept) = in_time("the provider ends", async { tokio::join!(run, keep) }).await;
        (kept, exit)
    }
}
