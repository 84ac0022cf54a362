//! trial
use protocol::{event::Event, secret::Secret, spec::{Endpoint, HttpEndpoint, ProviderKind}};
use test_support::model::Model;
use crate::run::Run;

#[tokio::test]
async fn trial() {
    let model = Model::start().await;
    let which = std::env::var("OZMA_TRIAL").unwrap_or_default();
    let scenarios = std::env::var("OZMA_SCENARIOS").unwrap_or_else(|_| "file".to_owned());
    for name in which.split(',') {
        for scenario in scenarios.split(',') {
        let provider: ProviderKind = serde_json::from_value(name.into()).unwrap();
        let mut run = Run::new(provider);
        let http = |base_url| HttpEndpoint { base_url, api_key: Some(Secret::new("sk-test")), model: "stub-model".to_owned(), ..HttpEndpoint::default() };
        run.launch.harness.endpoint = Some(match provider {
            ProviderKind::Claude => Endpoint::Anthropic(http(model.root(scenario))),
            ProviderKind::Codex => Endpoint::OpenaiResponses(http(model.base_url(scenario))),
            ProviderKind::Opencode => Endpoint::OpenaiChat(http(model.base_url(scenario))),
            _ => Endpoint::Gemini(http(model.root(scenario))),
        });
        let home = run.folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        run.launch.env.insert("PATH".to_owned(), Secret::new("/tmp/clis/bin:/usr/bin:/bin"));
        run.launch.env.insert("HOME".to_owned(), Secret::new(home.display().to_string()));
        let begun = std::time::Instant::now();
        let (events, exit) = run.finish().await;
        eprintln!("=== {name} {scenario} {:?} {exit:?}", begun.elapsed());
        for event in &events { let t = serde_json::to_string(event).unwrap(); eprintln!("   {}", &t[..t.floor_char_boundary(220)]); if let Event::Output{..} = event {} }
        eprintln!("   file: {:?}", std::fs::read_to_string(run.folder.path().join("hello.txt")));
        }
    }
    for request in model.requests() { eprintln!("{} {} {} tools={}", request.scenario, request.method, request.path, request.body["tools"].as_array().map_or(0, Vec::len)); }
}
