//! What the model server says in each scenario, whatever the dialect.

use std::time::Duration;

use serde_json::json;

use super::{
    Request,
    dialect::{Dialect, Facts},
    http::{Answer, Ending},
    reply::Reply,
};

/// What the scenario `text` says.
pub const TEXT: &str = "Hello from the model.";

/// The shell command that the scenario `tool` asks for in its first answer.
pub const TOOL_COMMAND: &str = "echo from-the-tool";

/// What the scenario `tool` says once it has the tool's result.
pub const RESULT_TEXT: &str = "The tool has answered.";

/// The shell command of the scenario `file`.
pub const FILE_COMMAND: &str = "echo written-by-the-model > hello.txt && cat hello.txt";

/// The shell command of the scenario `sleep`, to be cancelled in the middle of.
pub const SLEEP_COMMAND: &str = "echo begun > begun.txt; sleep 300";

/// How long the scenario `rate-limit-wait` wants to be left alone.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What the scenario `mcp` gives the first tool whose name ends in `echo`.
pub const MCP_TEXT: &str = "ping from the model";

/// The tools that the scenario `registry` calls, in order: a scan, and then what it brought.
pub const REGISTRY_CALLS: [(&str, &str); 5] = [
    ("workbench_registry_scan", "{}"),
    ("flow__upload", r#"{"name": "a", "content": "1234"}"#),
    ("flow__status", r#"{"name": "a"}"#),
    ("flow__update", r#"{"name": "a", "state": "approved"}"#),
    ("flow__status", r#"{"name": "a"}"#),
];

/// What it calls in a follow-up: nothing that it had to scan for again.
const REGISTRY_LATER: [(&str, &str); 2] =
    [("flow__upload", r#"{"name": "b", "content": "12"}"#), ("flow__status", r#"{"name": "b"}"#)];

/// Whether a provider asks for something beside its work, a title.
pub(super) fn is_aside(request: &Request) -> bool {
    request.body.to_string().contains("title generator")
}

/// The answer to a request; `earlier` is how many of the same scenario came before.
pub(super) fn to(request: &Request, earlier: usize) -> Answer {
    let Some(dialect) = Dialect::of(&request.path) else {
        // A client that only looks whether somebody is there.
        if request.method == "HEAD" {
            return Answer::head(200);
        }
        return Answer::json(404, "", &json!({"error": {"message": "no such path"}}));
    };
    let facts = dialect.facts(&request.body);
    let reply = |reply: Reply| dialect.reply(&reply, &request.path);
    let text = |text: &str| reply(Reply::Text(text.to_owned()));
    let refuse = |status, headers: &str, code: &str, message: &str| {
        Answer::json(status, headers, &dialect.error(status, code, message))
    };
    let limited = |wait: u64| dialect.limited(wait);
    match request.scenario.as_str() {
        "text" => text(TEXT),
        "tool" if facts.after_tool => text(RESULT_TEXT),
        "file" | "sleep" | "mcp" if facts.after_tool => {
            text(&format!("{RESULT_TEXT} users={} said={}", facts.users, facts.tool_said))
        }
        // Titles and routers are asked for without tools.
        "tool" | "file" | "sleep" | "mcp" if facts.tools.is_empty() => text(TEXT),
        "tool" => reply(shell(&facts, TOOL_COMMAND)),
        "file" => reply(shell(&facts, FILE_COMMAND)),
        "sleep" => reply(shell(&facts, SLEEP_COMMAND)),
        "mcp" => match facts.tools.iter().find(|tool| tool.ends_with("echo")) {
            Some(tool) => {
                reply(Reply::Call { tool: tool.clone(), input: json!({"text": MCP_TEXT}) })
            }
            // Claude Code and Codex list the tools of servers only when they are searched for.
            None => match facts.tools.iter().find(|tool| *tool == "ToolSearch") {
                Some(tool) => reply(Reply::Call {
                    tool: tool.clone(),
                    input: json!({"query": "echo", "max_results": 5}),
                }),
                None => text("no tool of that name is offered"),
            },
        },
        "registry" => {
            let later = REGISTRY_LATER.iter().filter(|_| facts.users > 1);
            match REGISTRY_CALLS.iter().chain(later).nth(facts.results) {
                Some((tool, input)) => reply(Reply::Call {
                    tool: (*tool).to_owned(),
                    input: serde_json::from_str(input).unwrap_or_default(),
                }),
                None => text(&format!("{RESULT_TEXT} said={}", facts.tool_said)),
            }
        }
        "users" => text(&format!("users={}", facts.users)),
        "unauthorized" => refuse(401, "", "invalid_api_key", "Incorrect API key provided"),
        "rate-limit-once" | "error-once" if is_aside(request) => text(TEXT),
        "rate-limit-once" if earlier > 0 => text(TEXT),
        "rate-limit-once" | "rate-limit" => limited(0),
        "rate-limit-wait" => limited(RETRY_AFTER.as_secs()),
        "rate-limit-long" => limited(3600),
        "refused" => reply(Reply::Refused),
        "quota" => {
            refuse(dialect.unpaid(), "", "insufficient_quota", "You exceeded your current quota")
        }
        "overloaded" => refuse(dialect.overloaded(), "", "overloaded", "Overloaded"),
        "error-once" if earlier > 0 => text(TEXT),
        "error-once" | "error" => refuse(500, "", "server_error", "The server had an error"),
        "reset" => text(TEXT).beginning(Ending::Reset),
        "malformed" => Answer::malformed(),
        "slow" => text(TEXT).beginning(Ending::Stall),
        _ => refuse(404, "", "not_found", "no such scenario"),
    }
}

/// The shell tool goes by many names.
fn shell(facts: &Facts, command: &str) -> Reply {
    for (name, input) in [
        ("shell", json!({"command": command})),
        ("Bash", json!({"command": command, "description": "run it"})),
        ("exec_command", json!({"cmd": command})),
        ("bash", json!({"command": command, "description": "run it"})),
        ("run_shell_command", json!({"command": command, "description": "run it"})),
    ] {
        if facts.tools.iter().any(|tool| tool == name) {
            return Reply::Call { tool: name.to_owned(), input };
        }
    }
    // Tests of the built-in agent ask without naming tools.
    Reply::Call { tool: "shell".to_owned(), input: json!({"command": command}) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    fn ask(path: &str, scenario: &str, earlier: usize, body: Value) -> String {
        let request = Request {
            method: "POST".to_owned(),
            scenario: scenario.to_owned(),
            path: path.to_owned(),
            headers: HashMap::new(),
            body,
        };
        to(&request, earlier).parts.concat()
    }

    const CHAT: &str = "/v1/chat/completions";

    #[test]
    fn the_second_try_after_a_rate_limit_succeeds() {
        assert!(ask(CHAT, "rate-limit-once", 0, Value::Null).starts_with("HTTP/1.1 429"));
        assert!(ask(CHAT, "rate-limit-once", 1, Value::Null).ends_with("data: [DONE]\n\n"));
    }

    /// In each dialect: a call first, a text once the result is there.
    #[test]
    fn a_tool_is_asked_for_once() {
        for (path, first, second) in [
            (
                CHAT,
                json!({"tools": [{"function": {"name": "shell"}}], "messages": [{"role": "user"}]}),
                json!({"messages": [{"role": "user"}, {"role": "tool", "content": "x"}]}),
            ),
            (
                "/v1/responses",
                json!({"tools": [{"type": "function", "name": "exec_command"}], "input": [{"role": "user"}]}),
                json!({"input": [{"role": "user"}, {"type": "function_call_output", "output": "x"}]}),
            ),
            (
                "/v1/messages?beta=true",
                json!({"tools": [{"name": "Bash"}], "messages": [{"role": "user", "content": "x"}]}),
                json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]}),
            ),
            (
                "/v1beta/models/m:streamGenerateContent?alt=sse",
                json!({"tools": [{"functionDeclarations": [{"name": "run_shell_command"}]}],
                    "contents": [{"role": "user", "parts": [{"text": "x"}]}]}),
                json!({"contents": [{"role": "user", "parts": [{"functionResponse": {"response": {}}}]}]}),
            ),
        ] {
            let answer = ask(path, "file", 0, first);
            assert!(answer.contains("hello.txt"), "{path}: {answer}");
            let answer = ask(path, "file", 1, second);
            assert!(
                !answer.contains("hello.txt") && answer.contains("The tool"),
                "{path}: {answer}"
            );
        }
    }
}
