//! The built-in agent in its unprivileged child: scripted, and with a model behind an endpoint.

use protocol::{
    event::{Event, EventLine},
    failure::FailureReason,
    secret::Secret,
    spec::{Endpoint, ProviderKind, RunSpec},
};
use test_support::{
    model::{Model, RESULT_TEXT},
    repo::Repository,
};

use crate::worker::{Worker, command, with_repo};

fn agent() -> RunSpec {
    let mut spec = command("");
    spec.harness.provider = ProviderKind::Agent;
    spec.harness.command = None;
    spec
}

#[tokio::test]
async fn a_scripted_agent_changes_a_repository_and_says_that_it_is_scripted() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let mut spec = with_repo(agent(), repo.path());
    spec.prompt = "do it".to_owned();
    let script = r#"{"name": "demo", "turns": [
        {"text": "You asked: {{prompt}}", "tools": [
            {"name": "edit_file", "input": {"path": "a.txt", "old_text": "one", "new_text": "two"}},
            {"name": "shell", "input": {"command": "cat a.txt"}}]},
        {"answer": "done: {{prompt}}"}]}"#;
    spec.harness.endpoint = Some(Endpoint::Scripted { script: script.to_owned() });
    let heard = Worker::start().run(spec).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    let mut kinds = Vec::new();
    for line in &heard.0 {
        let of_model = ["model", "text", "tool_call", "tool_result", "usage", "answer"]
            .contains(&line.kind.as_str());
        if of_model {
            assert!(line.data.get().contains("\"scripted\":true"), "{line:?}");
            kinds.push(line.kind.as_str());
        }
    }
    assert_eq!(
        kinds,
        [
            "model",
            "text",
            "usage",
            "tool_call",
            "tool_result",
            "tool_call",
            "tool_result",
            "usage",
            "answer"
        ]
    );
    let answer = heard.events().find_map(|event| match event {
        Event::Answer { text, .. } => Some(text),
        _ => None,
    });
    assert_eq!(answer.unwrap(), "done: do it");
    assert!(String::from_utf8_lossy(&heard.files()["changes.patch"]).contains("+two"));
}

#[tokio::test]
async fn a_model_gets_its_key_and_the_tools_do_not() {
    let model = Model::start().await;
    let mut spec = agent();
    for (name, value) in [
        ("OPENAI_API_KEY", "marked-key-0815".to_owned()),
        ("OPENAI_BASE_URL", model.base_url("tool")),
        ("OPENAI_MODEL", "test-model".to_owned()),
    ] {
        spec.env.insert(name.to_owned(), Secret::new(value));
    }
    let heard = Worker::start().run(spec).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    let answered =
        |line: &EventLine| line.kind == "answer" && line.data.get().contains(RESULT_TEXT);
    assert!(heard.0.iter().any(answered));
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].headers["authorization"], "Bearer marked-key-0815");
    assert!(!heard.everything().contains("marked-key-0815"));
}

#[tokio::test]
async fn without_a_model_the_failure_names_where_one_is_set() {
    let exit = Worker::start().run(agent()).await.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::AuthMissing));
}
