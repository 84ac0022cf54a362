//! What servers may take and how often they may die, with bounds that tests can wait for.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    event::Event,
    sidecar::Launch,
    spec::{Endpoint, HarnessSpec, McpServer, ProviderKind},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::Adapter,
    agent::{Agent, mcp::Bounds},
    feed::Feed,
};

const FLOW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-support/mcp/flow.py");

fn program(command: &str, arg: &str) -> McpServer {
    let args = vec![arg.to_owned()];
    McpServer::Stdio { command: command.to_owned(), args, env: BTreeMap::new() }
}

/// The notices and the results of a run that calls these tools of one server, and the shell last: it always can.
async fn run(server: McpServer, bounds: Bounds, tools: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let call = |tool: &&str| format!(r#"{{"tools": [{{"name": "flow__{tool}", "input": {{}}}}]}}"#);
    let mut turns: Vec<_> = tools.iter().map(call).collect();
    turns.push(r#"{"tools": [{"name": "shell", "input": {"command": "echo on"}}]}"#.to_owned());
    let script =
        format!(r#"{{"name": "t", "turns": [{}, {{"answer": "done"}}]}}"#, turns.join(","));
    let path = folder.path().display().to_string();
    let mut agent = Agent::new(Launch {
        prompt: String::new(),
        directory: path.clone(),
        state_directory: path,
        registry: true,
        session_directory: String::new(),
        env: BTreeMap::new(),
        harness: HarnessSpec {
            provider: ProviderKind::Agent,
            endpoint: Some(Endpoint::Scripted { script }),
            mcp_servers: [("flow".to_owned(), server)].into(),
            ..HarnessSpec::default()
        },
    })
    .map_err(|failure| failure.message)
    .unwrap();
    agent.tools.servers.bound(bounds);
    let (sender, mut events) = mpsc::channel(256);
    let exit = agent.run(Feed::new(sender), CancellationToken::new()).await;
    assert!(exit.is_ok_and(|exit| exit.success));
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Notice { text } => told.push(text),
            Event::ToolResult { name, ok, output, .. } => {
                told.push(format!("{name} {ok} {output}"));
            }
            _ => {}
        }
    }
    told
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_out() {
    let bounds = Bounds { start: Duration::from_millis(50), ..Bounds::default() };
    let told = run(program("sleep", "600"), bounds, &["echo"]).await;
    let expected = expect_test::expect![[r#"
        the MCP server flow did not start: no answer within 0.05 s
        flow__echo false no tool "flow__echo"; there are shell, read_file, write_file, edit_file, workbench.registry.scan
        shell true on
        [exit code 0]"#]];
    expected.assert_eq(&told.join("\n"));
}

#[tokio::test]
async fn a_tool_that_hangs_is_a_tool_error() {
    let bounds = Bounds { call: Duration::from_millis(200), ..Bounds::default() };
    let told = run(program("python3", FLOW), bounds, &["hang", "hang"]).await;
    let expected = expect_test::expect![[r"
        flow.hang false the MCP server flow: no answer within 0.2 s
        flow.hang false the MCP server flow: no answer within 0.2 s
        shell true on
        [exit code 0]"]];
    expected.assert_eq(&told.join("\n"));
}

#[tokio::test]
async fn a_server_that_dies_too_often_is_not_started_again() {
    let told = run(program("python3", FLOW), Bounds::default(), &["die"; 6]).await;
    let ends: Vec<_> = told
        .iter()
        .map(|text| text.split_once(" (").map_or(text.as_str(), |(begin, _)| begin))
        .collect();
    let expected = expect_test::expect![[r"
        flow.die false the MCP server flow: it is gone
        flow.die false the MCP server flow: it is gone
        flow.die false the MCP server flow: it is gone
        flow.die false the MCP server flow: it is gone
        flow.die false the MCP server flow: it has died too often
        flow.die false the MCP server flow: it has died too often
        shell true on
        [exit code 0]"]];
    expected.assert_eq(&ends.join("\n"));
}
