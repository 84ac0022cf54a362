//! The built-in agent's whole loop: a scan brings a workflow server, whose tools the model then calls in turn.

use protocol::{event::Event, run::RunState, spec::ProviderKind};
use reqwest::Method;
use serde_json::{Value, json};
use test_support::model::{REGISTRY_CALLS, RESULT_TEXT};

use super::{Begun, Ended, Rig};

#[tokio::test]
async fn a_scan_brings_a_server_and_a_document_goes_its_way() {
    let rig = Rig::start(ProviderKind::Agent).await;
    let more = json!({
        "repos": [],
        "setup_commands": ["mkdir -p servers && cp -r /opt/flow servers/"],
        "artifacts": [".workbench/registry/mcp.json"],
    });
    let begun = rig.begin("registry", more).await;
    let ended = begun.ended_as(RunState::Succeeded).await;
    let results = tools_said(&ended);
    assert_eq!(results.len(), REGISTRY_CALLS.len(), "{results:?}");
    assert!(results[0].0 == "workbench.registry.scan" && results[0].2.contains("flow.upload"));
    assert_eq!(
        results[1..],
        [
            ("flow.upload", true, "a has 4 characters"),
            ("flow.status", true, "uploaded"),
            ("flow.update", true, "done"),
            ("flow.status", true, "approved"),
        ]
    );
    assert!(ended.answer().starts_with(RESULT_TEXT) && ended.answer().contains("approved"));
    let written: Value = serde_json::from_str(ended.file("mcp.json")).unwrap();
    assert_eq!(written["mcpServers"]["flow"]["command"], "perl");

    let path = format!("/agent/runs/{}/evidence/summary.json", begun.run);
    let summary: Value =
        serde_json::from_str(&rig.tenant.get(&path).await.text().await.unwrap()).unwrap();
    assert_eq!(summary["provider"], "agent", "{summary}");
    assert_eq!(summary["exit"]["success"], true, "{summary}");

    // The follow-up calls what it was not told of in its own run.
    let path = format!("/agent/runs/{}/followups", begun.run);
    let answer = rig.tenant.send(Method::POST, &path, Some(&json!({"message": "another"}))).await;
    let made: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let run = made["run_id"].as_str().unwrap().to_owned();
    let Begun { model, scenario, .. } = begun;
    let later = Begun { rig: &rig, model, scenario, run };
    let ended = later.ended_as(RunState::Succeeded).await;
    let called = [("flow.upload", true, "b has 2 characters"), ("flow.status", true, "uploaded")];
    assert_eq!(tools_said(&ended), called);
    drop(later);
    rig.finish().await;
}

fn tools_said(run: &Ended) -> Vec<(&str, bool, &str)> {
    let results = run.events.iter().filter_map(|event| match event {
        Event::ToolResult { name, ok, output, scripted: false, .. } => {
            Some((name.as_str(), *ok, output.as_str()))
        }
        _ => None,
    });
    results.collect()
}
