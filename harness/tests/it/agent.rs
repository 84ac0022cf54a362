//! The built-in agent against a model server that misbehaves, and against scripts.

use protocol::{
    event::{Event, Exit},
    failure::FailureReason as R,
    secret::Secret,
    spec::{Endpoint, HttpEndpoint},
};
use test_support::model::{Model, RESULT_TEXT, TEXT, TOOL_COMMAND};

use crate::run::Run;

fn answer(events: &[Event]) -> Option<&str> {
    events.iter().find_map(|event| match event {
        Event::Answer { text, .. } => Some(text.as_str()),
        _ => None,
    })
}

fn retries(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::ModelRetry { .. })).count()
}

#[tokio::test]
async fn text_is_the_answer_and_tools_come_before_it() {
    let model = Model::start().await;
    let (events, exit) = Run::model(model.base_url("text")).finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(answer(&events), Some(TEXT));
    let body = &model.requests()[0].body;
    assert_eq!(body["model"], "test-model");
    assert_eq!(body["messages"][1]["content"], "the prompt");
    assert_eq!(body["tools"].as_array().unwrap().len(), 5);

    let (events, exit) = Run::model(model.base_url("tool")).finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(answer(&events), Some(RESULT_TEXT));
    let called = events.iter().any(|event| {
        matches!(event, Event::ToolCall { name, input, .. }
            if name == "shell" && input["command"] == TOOL_COMMAND)
    });
    assert!(called, "{events:?}");
    let used = events.iter().rev().find_map(|event| match event {
        Event::Usage { input_tokens, output_tokens, turns, .. } => {
            Some((*input_tokens, *output_tokens, *turns))
        }
        _ => None,
    });
    assert_eq!(used, Some((22, 14, 2)));
    let last = &model.requests()[2].body["messages"];
    assert_eq!(last[2]["tool_calls"][0]["id"], last[3]["tool_call_id"]);
}

async fn failure(model: &Model, scenario: &str) -> (usize, Exit) {
    let (events, exit) = Run::model(model.base_url(scenario)).finish().await;
    assert!(!exit.success && !format!("{events:?}{exit:?}").contains("marked-key"));
    (retries(&events), exit)
}

#[tokio::test]
async fn what_passes_with_time_is_tried_again() {
    let model = Model::start().await;
    for scenario in ["rate-limit-once", "error-once"] {
        let (events, exit) = Run::model(model.base_url(scenario)).finish().await;
        assert!(exit.success, "{scenario}: {exit:?}");
        assert_eq!(retries(&events), 1);
    }
    let (tries, exit) = failure(&model, "rate-limit").await;
    assert_eq!((tries, exit.reason), (4, Some(R::RateLimit)));
}

#[tokio::test]
async fn what_does_not_pass_is_not() {
    let model = Model::start().await;
    for (scenario, reason) in [
        ("unauthorized", R::AuthExpired),
        ("quota", R::QuotaExhausted),
        ("other", R::AgentInvocation),
    ] {
        let (tries, exit) = failure(&model, scenario).await;
        assert_eq!((tries, exit.reason), (0, Some(reason)), "{scenario}");
    }
}

#[tokio::test]
async fn a_broken_endpoint_is_a_network_error() {
    let model = Model::start().await;
    let nobody = Run::model("http://127.0.0.1:1/v1".to_owned());
    let ((_, error), (_, reset), (_, malformed), (_, refused)) = tokio::join!(
        failure(&model, "error"),
        failure(&model, "reset"),
        failure(&model, "malformed"),
        nobody.finish()
    );
    for exit in [error, reset, malformed, refused] {
        assert_eq!(exit.reason, Some(R::NetworkError), "{exit:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_and_a_long_tool_are_cancelled() {
    let model = Model::start().await;
    let run = Run::model(model.base_url("slow"));
    let cancel = run.cancel.clone();
    let asked = async {
        test_support::wait::eventually("the request", || async {
            (!model.requests().is_empty()).then_some(())
        })
        .await;
        cancel.cancel();
    };
    let ((_, exit), ()) = tokio::join!(run.finish(), asked);
    assert_eq!(exit.reason, Some(R::TaskCancelled));

    let run =
        Run::scripted(r#"[{"tools": [{"name": "shell", "input": {"command": "sleep 600"}}]}]"#);
    let cancel = run.cancel.clone();
    let stop = |event: &Event| {
        if matches!(event, Event::ToolCall { .. }) {
            cancel.cancel();
        }
    };
    let (_, exit) = run.watch(stop).await;
    assert_eq!(exit.reason, Some(R::TaskCancelled));
}

/// It hears the interrupt and has time for its last words; one that does not care is killed.
#[tokio::test]
async fn a_command_is_interrupted_first_and_killed_after() {
    for (trap, last_word) in [("echo bye >bye; exit", true), ("", false)] {
        let line = format!("trap '{trap}' TERM; sleep 600 & echo $$ >pid; wait");
        let turns = serde_json::json!([{"tools": [{"name": "shell", "input": {"command": line}}]}]);
        let run = Run::scripted(&turns.to_string());
        let (pid, cancel) = (run.folder.path().join("pid"), run.cancel.clone());
        let begun = async {
            let written = async || std::fs::read_to_string(&pid).ok().filter(|pid| !pid.is_empty());
            let pid = test_support::wait::eventually("it runs", written).await;
            cancel.cancel();
            pid
        };
        let ((_, exit), pid) = tokio::join!(run.finish(), begun);
        assert_eq!(exit.reason, Some(R::TaskCancelled));
        assert_eq!(run.folder.path().join("bye").exists(), last_word);
        let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
        let gone = async || (!process.exists()).then_some(());
        test_support::wait::eventually("it is gone", gone).await;
    }
}

#[tokio::test]
async fn bounds_end_the_run_and_are_named() {
    let model = Model::start().await;
    let (_, exit) = Run::model(model.base_url("tool")).bounds(1, 1_000).finish().await;
    assert_eq!(exit.reason, Some(R::AgentLimit));
    assert!(exit.message.contains("turns (1)"), "{}", exit.message);
    let (_, exit) = Run::model(model.base_url("tool")).bounds(9, 10).finish().await;
    assert!(exit.message.contains("tokens (10)"), "{}", exit.message);
}

#[tokio::test]
async fn a_script_past_its_end_answers_with_its_last_text() {
    let turns = r#"[{"text": "first"}, {"text": "for {{prompt}}", "tools": [
        {"name": "nonsense", "input": {}}, {"name": "read_file", "input": {"path": "none"}}]}]"#;
    let (events, exit) = Run::scripted(turns).finish().await;
    assert!(exit.success);
    assert_eq!(answer(&events), Some("for the prompt"));
    let failed = events.iter().filter(|event| matches!(event, Event::ToolResult { ok: false, .. }));
    assert_eq!(failed.count(), 2);

    let mut run = Run::scripted("[]");
    run.launch.harness.endpoint = Some(Endpoint::Scripted { script: "{".to_owned() });
    assert_eq!(run.finish().await.1.reason, Some(R::AgentInvocation));
}

#[tokio::test]
async fn a_key_that_the_endpoint_repeats_is_not_handed_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 64 << 10];
        let mut length = 0;
        while !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            length += socket.read(&mut request[length..]).await.unwrap();
        }
        let head = String::from_utf8_lossy(&request[..length]).to_lowercase();
        let line = head.lines().find(|line| line.starts_with("authorization")).unwrap();
        let body = format!("no such key: {line}");
        let answer = format!("HTTP/1.1 401 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        // Kept open until the answer was read.
        while socket.read(&mut request).await.is_ok_and(|count| count > 0) {}
    };
    let run = Run::model(format!("http://{address}"));
    let ((_, exit), ()) = tokio::join!(run.finish(), echo);
    assert_eq!(exit.reason, Some(R::AuthExpired));
    assert!(exit.message.contains("bearer [secret]"), "{}", exit.message);
}

/// Each dialect in each scenario: how it ends, how often the model was asked again, what it cost.
#[tokio::test]
async fn every_dialect_in_every_scenario() {
    const SCENARIOS: [&str; 11] = [
        "text",
        "tool",
        "rate-limit-once",
        "error-once",
        "unauthorized",
        "quota",
        "overloaded",
        "rate-limit",
        "error",
        "reset",
        "malformed",
    ];
    async fn one(dialect: fn(HttpEndpoint) -> Endpoint, scenario: &str, model: &Model) -> String {
        let mut run = Run::model(model.base_url(scenario));
        let Some(Endpoint::OpenaiChat(mut http)) = run.launch.harness.endpoint.take() else {
            panic!()
        };
        if matches!(dialect(HttpEndpoint::default()), Endpoint::Anthropic(_)) {
            http.base_url = model.root(scenario);
        }
        run.launch.harness.endpoint = Some(dialect(http));
        let (events, exit) = run.finish().await;
        let told = format!("{events:?}{exit:?}");
        assert!(!told.contains("marked-key"), "{told}");
        let last = match (answer(&events), exit.reason) {
            (Some(text), None) if exit.success => text.to_owned(),
            (None, Some(reason)) => reason.to_string(),
            _ => panic!("{told}"),
        };
        let used = events.iter().rev().find_map(|event| match event {
            Event::Usage { input_tokens, output_tokens, turns, .. } => {
                Some(format!("; {input_tokens} + {output_tokens} tokens, {turns} turns"))
            }
            _ => None,
        });
        format!("{scenario}: {} retries; {last}{}", retries(&events), used.unwrap_or_default())
    }
    let mut all = Vec::new();
    for dialect in [Endpoint::OpenaiChat, Endpoint::OpenaiResponses, Endpoint::Anthropic] {
        let model = Model::start().await;
        let runs = SCENARIOS.map(|scenario| one(dialect, scenario, &model));
        all.push(futures_util::future::join_all(runs).await.join("\n"));
    }
    assert_eq!(all[0], all[1], "responses");
    let expected = expect_test::expect![[r"
        text: 0 retries; Hello from the model.; 11 + 7 tokens, 1 turns
        tool: 0 retries; The tool has answered.; 22 + 14 tokens, 2 turns
        rate-limit-once: 1 retries; Hello from the model.; 11 + 7 tokens, 1 turns
        error-once: 1 retries; Hello from the model.; 11 + 7 tokens, 1 turns
        unauthorized: 0 retries; auth_expired
        quota: 0 retries; quota_exhausted
        overloaded: 4 retries; rate_limit
        rate-limit: 4 retries; rate_limit
        error: 4 retries; network_error
        reset: 4 retries; network_error
        malformed: 4 retries; network_error"]];
    expected.assert_eq(&all[0]);
    // Anthropic counts what came from its cache apart.
    assert_eq!(all[0].replace("; 11 +", "; 14 +").replace("; 22 +", "; 28 +"), all[2]);
}

fn session(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::Session { session_id, .. } => Some(session_id.clone()),
        _ => None,
    })
}

#[tokio::test]
async fn a_later_run_goes_on_with_the_conversation() {
    let model = Model::start().await;
    let mut run = Run::model(model.base_url("tool"));
    assert_eq!(session(&run.finish().await.0), None, "nothing is kept without a folder");
    let kept = run.folder.path().join("kept");
    run.launch.session_directory = kept.display().to_string();
    run.launch.prompt = "the first prompt".to_owned();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    let id = session(&events).unwrap();

    let mut next = Run::model(model.base_url("text"));
    next.launch.session_directory = kept.display().to_string();
    next.launch.harness.resume = Some(id.clone());
    next.launch.prompt = "the second prompt".to_owned();
    let (events, exit) = next.finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(session(&events).as_ref(), Some(&id));
    let asked = model.requests().pop().unwrap().body["messages"].clone();
    let said: Vec<_> = asked
        .as_array()
        .unwrap()
        .iter()
        .map(|message| match message["content"].as_str() {
            Some(text) if message["role"] != "system" => text.to_owned(),
            _ => message["role"].as_str().unwrap().to_owned(),
        })
        .collect();
    assert_eq!(said.len(), 6, "{said:?}");
    assert_eq!((said[1].as_str(), said[5].as_str()), ("the first prompt", "the second prompt"));
    assert_eq!(said[4], RESULT_TEXT);

    for file in std::fs::read_dir(kept.join("agent")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(text.contains("the second prompt") && !text.contains("marked-key"));
    }
    std::fs::remove_dir_all(&kept).unwrap();
    let asked = model.requests().len();
    assert_eq!(next.finish().await.1.reason, Some(R::SessionGone));
    assert_eq!(model.requests().len(), asked);
}

#[tokio::test]
async fn a_run_that_was_cancelled_can_be_gone_on_with() {
    let mut run = Run::scripted(
        r#"[{"tools": [{"name": "shell", "input": {"command": "sleep 600"}}, {"name": "shell", "input": {}}]}]"#,
    );
    let kept = run.folder.path().join("kept").display().to_string();
    run.launch.session_directory.clone_from(&kept);
    let cancel = run.cancel.clone();
    let stop = |event: &Event| {
        if matches!(event, Event::ToolCall { .. }) {
            cancel.cancel();
        }
    };
    let (events, exit) = run.watch(stop).await;
    assert_eq!(exit.reason, Some(R::TaskCancelled));
    let model = Model::start().await;
    let mut next = Run::model(model.base_url("text"));
    next.launch.session_directory = kept;
    next.launch.harness.resume = session(&events);
    assert!(next.finish().await.1.success);
    let asked = &model.requests()[0].body["messages"];
    let roles: Vec<_> =
        asked.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "user"]);
}

#[tokio::test]
async fn the_environments_own_names_lead_to_its_own_server() {
    const URL: (&str, &str) = ("WORKBENCH_OPENAI_BASE_URL", "v1");
    const MODEL: (&str, &str) = ("WORKBENCH_OPENAI_MODEL", "m");
    const KEY: (&str, &str) = ("WORKBENCH_OPENAI_API_KEY", "token");
    let model = Model::start().await;
    let named = |name: &'static str| ("WORKBENCH_PROVIDER", name);
    for (env, dialect, header) in [
        (
            vec![named("openai-oauth"), URL, KEY, MODEL],
            "openai_responses",
            ("authorization", Some("Bearer token")),
        ),
        (
            vec![named("openai-remote"), URL, KEY, MODEL],
            "openai_chat",
            ("authorization", Some("Bearer token")),
        ),
        (
            vec![named("openai-remote"), URL, MODEL, ("WORKBENCH_OPENAI_ALLOW_NOAUTH", "1")],
            "openai_chat",
            ("authorization", None),
        ),
        (vec![named("openai-local"), URL, MODEL], "openai_chat", ("authorization", None)),
        (
            vec![named("openai-local"), URL, KEY, MODEL],
            "openai_chat",
            ("authorization", Some("Bearer token")),
        ),
        (
            vec![
                named("anthropic"),
                ("ANTHROPIC_BASE_URL", ""),
                ("WORKBENCH_ANTHROPIC_API_KEY", "token"),
                ("WORKBENCH_ANTHROPIC_MODEL", "m"),
            ],
            "anthropic",
            ("x-api-key", Some("token")),
        ),
        (
            vec![
                ("OZ_PROVIDER_TYPE", "openai_compatible"),
                ("OZ_PROVIDER_BASE_URL", "v1"),
                ("OZ_PROVIDER_API_KEY", "token"),
                ("OZ_MODEL", "m"),
            ],
            "openai_chat",
            ("authorization", Some("Bearer token")),
        ),
        (
            vec![("OZ_PROVIDER_BASE_URL", "v1"), ("OZ_MODEL", "m")],
            "openai_chat",
            ("authorization", None),
        ),
    ] {
        // The worker has an endpoint and a key, which are not asked.
        let mut run = Run::model("http://127.0.0.1:9/v1".to_owned());
        for (name, value) in env {
            let value = if name.ends_with("BASE_URL") {
                format!("{}/{value}", model.root("tool"))
            } else {
                value.to_owned()
            };
            run.launch.env.insert(name.to_owned(), Secret::new(value));
        }
        let (events, exit) = run.finish().await;
        assert!(exit.success, "{exit:?}");
        let Event::Model { dialect: told, model: named, .. } = &events[0] else { panic!() };
        assert_eq!((told.as_str(), named.as_str()), (dialect, "m"));
        let asked = model.requests().pop().unwrap();
        assert_eq!(asked.headers.get(header.0).map(String::as_str), header.1);
        assert!(!format!("{:?}", asked.headers).contains("marked-key"));
    }
}
