//! The built-in agent and real MCP servers: over standard streams and HTTP, many at once, hanging and dying.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    event::Event,
    secret::Secret,
    spec::{McpServer, ProviderKind},
};

use futures_util::FutureExt;
use tokio::net::TcpListener;

use crate::run::Run;

const FLOW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-support/mcp/flow.py");

/// The workflow server, as a program.
fn flow() -> McpServer {
    McpServer::Stdio {
        command: "python3".to_owned(),
        args: vec![FLOW.to_owned()],
        env: BTreeMap::from([("OF_THE_SERVER".to_owned(), Secret::new("its own"))]),
    }
}

/// A scripted run whose turns each call one tool.
fn calls(calls: &[(&str, &str)]) -> Run {
    let turns: Vec<_> = calls
        .iter()
        .map(|(tool, input)| format!(r#"{{"tools": [{{"name": "{tool}", "input": {input}}}]}}"#))
        .collect();
    Run::scripted(&format!(r#"[{}, {{"answer": "done"}}]"#, turns.join(", ")))
}

fn results(events: &[Event]) -> Vec<(&str, bool, &str)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::ToolResult { name, ok, output, .. } => {
                Some((name.as_str(), *ok, output.as_str()))
            }
            _ => None,
        })
        .collect()
}

fn notices(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Notice { text } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn tools_of_several_servers_are_called() {
    let mut run = calls(&[
        ("flow__upload", r#"{"name": "a", "content": "1234"}"#),
        ("flow__status", r#"{"name": "a"}"#),
        ("flow__update", r#"{"name": "a", "state": "checked"}"#),
        ("flow__status", r#"{"name": "a"}"#),
        ("other__status", r#"{"name": "a"}"#),
        ("flow__variable", r#"{"name": "OF_THE_SERVER"}"#),
        ("flow__variable", r#"{"name": "OPENAI_API_KEY"}"#),
    ]);
    run.launch.env.insert("OPENAI_API_KEY".to_owned(), Secret::new("marked-key"));
    run.launch.harness.mcp_servers =
        [("flow".to_owned(), flow()), ("other".to_owned(), flow())].into();
    run.launch.env.remove("OPENAI_API_KEY");
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(
        results(&events),
        [
            ("flow.upload", true, "a has 4 characters"),
            ("flow.status", true, "uploaded"),
            ("flow.update", true, "done"),
            ("flow.status", true, "checked"),
            ("other.status", false, "the MCP server other: there is no 'a'"),
            ("flow.variable", true, "its own"),
            ("flow.variable", true, "not set"),
        ]
    );
}

#[tokio::test]
async fn a_server_that_dies_is_a_tool_error_and_starts_again() {
    let mut run = calls(&[
        ("flow__die", "{}"),
        ("flow__echo", r#"{"text": "still here"}"#),
        ("flow__echo", "[1]"),
        ("flow__nothing", "{}"),
        ("nobody__echo", "{}"),
    ]);
    run.launch.harness.mcp_servers = [("flow".to_owned(), flow())].into();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    let results = results(&events);
    assert!(!results[0].1 && results[0].2.contains("it is gone"), "{results:?}");
    assert_eq!(results[1], ("flow.echo", true, "echo:still here"));
    assert!(!results[2].1 && results[2].2.contains("no JSON object"), "{results:?}");
    assert!(results[3..].iter().all(|(_, ok, text)| !ok && text.contains("no tool")));
}

#[tokio::test]
async fn a_server_that_does_not_start_is_told_of_and_left_out() {
    let mut run = calls(&[("flow__echo", r#"{"text": "x"}"#)]);
    let missing = McpServer::Stdio {
        command: "/nowhere/server".to_owned(),
        args: Vec::new(),
        env: BTreeMap::new(),
    };
    // One that is no MCP server ends at once.
    let silent =
        McpServer::Stdio { command: "true".to_owned(), args: Vec::new(), env: BTreeMap::new() };
    let nobody =
        McpServer::Http { url: "http://127.0.0.1:9/".to_owned(), headers: BTreeMap::new() };
    run.launch.harness.mcp_servers = [
        ("flow".to_owned(), flow()),
        ("missing".to_owned(), missing),
        ("silent".to_owned(), silent),
        ("nobody".to_owned(), nobody),
    ]
    .into();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    let notices = notices(&events);
    for name in ["missing", "silent", "nobody"] {
        let told = format!("the MCP server {name} did not start");
        assert!(notices.iter().any(|text| text.starts_with(&told)), "{notices:?}");
    }
    assert_eq!(results(&events), [("flow.echo", true, "echo:x")]);
}

/// The scenario of the smaller runner: scan a folder, then work with the server it brought.
#[tokio::test]
async fn a_scan_brings_servers_and_writes_them_down() {
    let run = calls(&[
        ("workbench_registry_scan", "{}"),
        ("flow__upload", r#"{"name": "a", "content": "1234"}"#),
        ("flow__status", r#"{"name": "a"}"#),
        ("flow__update", r#"{"name": "a", "state": "approved"}"#),
        ("flow__status", r#"{"name": "a"}"#),
    ]);
    let folder = run.folder.path();
    std::fs::create_dir_all(folder.join("servers/flow")).unwrap();
    std::fs::copy(FLOW, folder.join("servers/flow/flow.py")).unwrap();
    let manifest = r#"{"name": "flow", "command": "python3", "args": ["flow.py"]}"#;
    std::fs::write(folder.join("servers/flow/server.json"), manifest).unwrap();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    let results = results(&events);
    assert_eq!(results[0].0, "workbench.registry.scan");
    assert!(results[0].1 && results[0].2.contains("flow.upload"), "{results:?}");
    let outputs: Vec<_> = results[1..].iter().map(|(_, _, output)| *output).collect();
    assert_eq!(outputs, ["a has 4 characters", "uploaded", "done", "approved"]);
    let written = std::fs::read(folder.join(".workbench/registry/mcp.json")).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["mcpServers"]["flow"]["command"], "python3");
    let tools = written["mcpServers"]["flow"]["tools"].as_array().unwrap();
    assert!(tools.iter().any(|tool| tool == "status"), "{tools:?}");
}

/// The same folder, once more.
fn again(first: &Run, turns: &[(&str, &str)]) -> Run {
    let mut run = calls(turns);
    run.launch.directory.clone_from(&first.launch.directory);
    run
}

#[tokio::test]
async fn a_later_run_has_the_servers_that_a_scan_wrote_down() {
    const ASK: (&str, &str) = ("flow__variable", r#"{"name": "OF_THE_MANIFEST"}"#);
    const ECHO: (&str, &str) = ("flow__echo", r#"{"text": "x"}"#);
    const SCAN: (&str, &str) = ("workbench_registry_scan", "{}");
    let first = calls(&[SCAN, ASK]);
    let servers = first.folder.path().join("servers");
    std::fs::create_dir(&servers).unwrap();
    std::fs::copy(FLOW, servers.join("flow.py")).unwrap();
    let manifest = |program: &str| {
        let text = format!(
            r#"{{"name": "flow", "command": "python3", "args": ["{program}"],
                "env": {{"OF_THE_MANIFEST": "kept-there"}}}}"#
        );
        std::fs::write(servers.join("flow.json"), text).unwrap();
    };
    manifest("flow.py");
    let (events, exit) = first.finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(results(&events)[1].2, "kept-there");
    let file = first.folder.path().join(".workbench/registry/mcp.json");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("kept-there"));

    let (events, _) = again(&first, &[ASK, ECHO]).finish().await;
    let called = [("flow.variable", true, "kept-there"), ("flow.echo", true, "echo:x")];
    assert_eq!(results(&events), called);
    assert_eq!(
        notices(&events),
        [".workbench/registry/mcp.json names servers, which are started: flow"]
    );

    // Where nobody says that the folder may decide what is started, nothing of it is.
    let mut wary = again(&first, &[ECHO]);
    wary.launch.registry = false;
    let (events, _) = wary.finish().await;
    assert!(!results(&events)[0].1, "{events:?}");
    assert!(notices(&events)[0].contains("is not used: nobody vouches"), "{events:?}");

    // The run's own server of that name is the one that is asked, and a scan leaves it so.
    let mut own = again(&first, &[ASK, SCAN, ASK]);
    own.launch.harness.mcp_servers = [("flow".to_owned(), flow())].into();
    let (events, _) = own.finish().await;
    let called = results(&events);
    assert_eq!((called[0].2, called[2].2), ("not set", "not set"));
    assert!(called[1].2.contains("flow: the run has a server of its own"), "{called:?}");
    std::fs::remove_file(&file).unwrap();
    assert!(first.finish().await.1.success);

    // A manifest that was changed since counts from the next scan on.
    let other = std::fs::read_to_string(FLOW).unwrap().replace("echo:", "changed:");
    std::fs::write(servers.join("other.py"), other).unwrap();
    manifest("other.py");
    let (events, _) = again(&first, &[ECHO, SCAN, ECHO]).finish().await;
    let called = results(&events);
    assert_eq!((called[0].2, called[2].2), ("echo:x", "changed:x"));
}

#[tokio::test]
async fn a_broken_registry_is_told_of_and_not_used() {
    let many: Vec<_> = (0..70).map(|n| format!(r#""s{n}": {{"command": "true"}}"#)).collect();
    let many = format!(r#"{{"mcpServers": {{{}}}}}"#, many.join(","));
    for (text, told) in [
        ("{", "is not used: it is not as a scan writes it"),
        (r#"{"mcpServers": {"a": 1}}"#, "is not used: it is not as a scan writes it"),
        (&"x".repeat(5 << 20), "is not used: more than 4194304 bytes"),
        ("\u{0}", "is not used: it is not as a scan writes it"),
        (r#"{"mcpServers": {"a.b": {"command": "x"}}}"#, ": \"a.b\" is no name"),
        (r#"{"mcpServers": {"a": {"command": "/none"}}}"#, "the MCP server a did not start"),
        (&many, ": more than 64 servers"),
    ] {
        let run = calls(&[("shell", r#"{"command": "echo fine"}"#)]);
        let registry = run.folder.path().join(".workbench/registry");
        std::fs::create_dir_all(&registry).unwrap();
        std::fs::write(registry.join("mcp.json"), text).unwrap();
        let (events, exit) = run.finish().await;
        assert!(exit.success && results(&events)[0].1, "{exit:?}");
        let notices = notices(&events);
        assert!(notices.iter().any(|text| text.contains(told)), "{told}: {notices:?}");
    }
    let run = calls(&[("shell", r#"{"command": "echo fine"}"#)]);
    std::fs::create_dir_all(run.folder.path().join(".workbench/registry/mcp.json")).unwrap();
    let (events, exit) = run.finish().await;
    assert!(exit.success && notices(&events)[0].contains("no regular file"), "{events:?}");
}

#[tokio::test]
async fn a_server_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("port");
    let mut server = tokio::process::Command::new("python3")
        .args([FLOW, "--http", &port.display().to_string()])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    test_support::wait::eventually("the server listens", async || port.exists().then_some(()))
        .await;
    let url = format!("http://127.0.0.1:{}/", std::fs::read_to_string(&port).unwrap());
    let mut run = calls(&[("web__echo", r#"{"text": "over HTTP"}"#)]);
    let headers = BTreeMap::from([("x-key".to_owned(), Secret::new("k"))]);
    run.launch.harness.mcp_servers = [("web".to_owned(), McpServer::Http { url, headers })].into();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    assert_eq!(results(&events), [("web.echo", true, "echo:over HTTP")]);
    server.kill().await.unwrap();
}

/// A real model's loop: it is offered the tool by a name it takes, and the result goes back to it.
#[tokio::test]
async fn a_model_calls_a_servers_tool_in_each_dialect() {
    let model = test_support::model::Model::start().await;
    for make in [
        protocol::spec::Endpoint::OpenaiChat,
        protocol::spec::Endpoint::OpenaiResponses,
        protocol::spec::Endpoint::Anthropic,
    ] {
        let mut run = Run::new(ProviderKind::Agent);
        let mut endpoint = make(protocol::spec::HttpEndpoint::default());
        let base_url = match &endpoint {
            protocol::spec::Endpoint::Anthropic(_) => model.root("mcp"),
            _ => model.base_url("mcp"),
        };
        if let protocol::spec::Endpoint::OpenaiChat(http)
        | protocol::spec::Endpoint::OpenaiResponses(http)
        | protocol::spec::Endpoint::Anthropic(http) = &mut endpoint
        {
            http.base_url = base_url;
            http.api_key = Some(Secret::new("marked-key"));
            http.model = "test-model".to_owned();
        }
        run.launch.harness.endpoint = Some(endpoint);
        run.launch.harness.mcp_servers = [("flow".to_owned(), flow())].into();
        let (events, exit) = run.finish().await;
        assert!(exit.success, "{exit:?} {events:?}");
        let output = format!("echo:{}", test_support::model::MCP_TEXT);
        assert_eq!(results(&events), [("flow.echo", true, output.as_str())]);
    }
}

#[tokio::test]
async fn what_a_server_lists_and_answers_is_bounded() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-support/mcp/hostile.py");
    let hostile = || McpServer::Stdio {
        command: "python3".to_owned(),
        args: vec![script.to_owned()],
        env: BTreeMap::new(),
    };
    let model = test_support::model::Model::start().await;
    let mut run = Run::model(model.base_url("text"));
    run.launch.harness.mcp_servers = [("h".to_owned(), hostile())].into();
    let (events, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    assert!(notices(&events)[0].starts_with("the MCP servers have 128 tools; "), "{events:?}");
    let tools = model.requests()[0].body["tools"].clone();
    assert!(tools.to_string().len() < 600 << 10);
    let tools = tools.as_array().unwrap();
    let names: BTreeSet<_> = tools.iter().map(|tool| tool["function"]["name"].as_str()).collect();
    assert!(names.contains(&Some("h__twice")) && names.len() == tools.len());
    assert!(tools.iter().all(|tool| tool["function"]["parameters"]["type"] == "object"));

    let mut run = calls(&[("h__large_result", "{}")]);
    run.launch.harness.mcp_servers = [("h".to_owned(), hostile())].into();
    let (events, exit) = run.finish().await;
    assert!(exit.success && results(&events)[0].2.len() <= 48 << 10, "{exit:?}");
}

/// A server that sends its clients elsewhere, and one that repeats what it was told.
#[tokio::test]
async fn what_a_server_is_trusted_with_goes_nowhere_else() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("location: http://{}/\r\n", elsewhere.local_addr().unwrap());
    let redirects = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repeats = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = |listener: &TcpListener| McpServer::Http {
        url: format!("http://{}/", listener.local_addr().unwrap()),
        headers: BTreeMap::from([("x-key".to_owned(), Secret::new("of-the-server"))]),
    };
    let mut run = calls(&[("flow__variable", r#"{"name": "KEY"}"#)]);
    let McpServer::Stdio { command, args, .. } = flow() else { panic!() };
    let env = BTreeMap::from([("KEY".to_owned(), Secret::new("of-the-server"))]);
    run.launch.harness.mcp_servers = [
        ("a".to_owned(), server(&redirects)),
        ("b".to_owned(), server(&repeats)),
        ("flow".to_owned(), McpServer::Stdio { command, args, env }),
    ]
    .into();
    let (events, exit) = tokio::select! {
        ended = run.finish() => ended,
        () = answer(redirects, 307, &location) => panic!(),
        () = answer(repeats, 400, "") => panic!(),
    };
    assert!(exit.success, "{exit:?}");
    assert_eq!(results(&events), [("flow.variable", true, "[secret]")]);
    let told = notices(&events).join("\n");
    assert!(told.contains("the MCP server a did not start"), "{told}");
    assert!(told.contains("x-key: [secret]"), "{told}");
    assert!(!format!("{events:?}").contains("of-the-server"));
    let nobody = elsewhere.accept().now_or_never();
    assert!(nobody.is_none(), "the redirect was followed");
}

/// Gives every request the same answer: what it was asked, after these headers.
async fn answer(listener: TcpListener, status: u16, headers: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut socket, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(socket.read_buf(&mut head).await.unwrap() > 0);
        }
        let head = String::from_utf8_lossy(&head);
        let length = head.len();
        let answer = format!(
            "HTTP/1.1 {status} x\r\n{headers}content-type: text/plain\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{head}"
        );
        let _ = socket.write_all(answer.as_bytes()).await;
        // Kept open until the answer was read.
        while socket.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    }
}

#[tokio::test]
async fn a_server_ends_with_the_run_even_when_it_hangs() {
    let mut run = calls(&[("flow__hang", "{}")]);
    let line = format!("echo $$ >pid; exec python3 {FLOW}");
    run.launch.harness.mcp_servers = [(
        "flow".to_owned(),
        McpServer::Stdio {
            command: "sh".to_owned(),
            args: vec!["-c".to_owned(), line],
            env: BTreeMap::new(),
        },
    )]
    .into();
    let cancel = run.cancel.clone();
    let stop = |event: &Event| {
        if matches!(event, Event::ToolCall { .. }) {
            cancel.cancel();
        }
    };
    let (_, exit) = run.watch(stop).await;
    assert_eq!(exit.reason, Some(protocol::failure::FailureReason::TaskCancelled));
    let pid = std::fs::read_to_string(run.folder.path().join("pid")).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    test_support::wait::eventually("it is gone", async || (!process.exists()).then_some(())).await;
}
