//! What the model server says in each scenario: whole HTTP responses, as text.

use serde_json::{Value, json};

use super::Request;

/// What the scenario `text` says.
pub const TEXT: &str = "Hello from the model.";

/// The shell command that the scenario `tool` asks for in its first answer.
pub const TOOL_COMMAND: &str = "echo from-the-tool";

/// What the scenario `tool` says once it has the tool's result.
pub const RESULT_TEXT: &str = "The tool has answered.";

pub(super) struct Answer {
    pub(super) parts: Vec<String>,
    pub(super) ending: Ending,
}

pub(super) enum Ending {
    Close,
    Reset,
    Stall,
}

/// The answer to a request; `earlier` is how many of the same scenario came before.
pub(super) fn to(request: &Request, earlier: usize) -> Answer {
    if request.path != "/v1/chat/completions" {
        return refusal(404, "", "not_found", "no such path");
    }
    let full = |chunks: &[Value]| stream(chunks, true, Ending::Close);
    match request.scenario.as_str() {
        "text" => full(&text(TEXT)),
        "tool" if after_tool(&request.body) => full(&text(RESULT_TEXT)),
        "tool" => full(&tool_call()),
        "unauthorized" => refusal(401, "", "invalid_api_key", "Incorrect API key provided"),
        "rate-limit-once" if earlier > 0 => full(&text(TEXT)),
        "rate-limit-once" | "rate-limit" => {
            refusal(429, "retry-after: 0\r\n", "rate_limit_exceeded", "Rate limit reached")
        }
        "quota" => refusal(429, "", "insufficient_quota", "You exceeded your current quota"),
        "error-once" if earlier > 0 => full(&text(TEXT)),
        "error-once" | "error" => refusal(500, "", "server_error", "The server had an error"),
        "reset" => stream(&text(TEXT)[..2], false, Ending::Reset),
        "malformed" => Answer {
            parts: vec![head(200, "text/event-stream", ""), "data: {\"choices\": [\n\n".to_owned()],
            ending: Ending::Close,
        },
        "slow" => stream(&text(TEXT)[..2], false, Ending::Stall),
        _ => refusal(404, "", "not_found", "no such scenario"),
    }
}

fn after_tool(body: &Value) -> bool {
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    last.is_some_and(|message| message["role"] == "tool")
}

fn chunk(delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": "test-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

fn usage() -> Value {
    json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": "test-model",
        "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    })
}

/// The text in two pieces, so that a reader has to put it together.
fn text(text: &str) -> Vec<Value> {
    let (first, second) = text.split_at(text.len() / 2);
    vec![
        chunk(&json!({"role": "assistant", "content": ""}), None),
        chunk(&json!({"content": first}), None),
        chunk(&json!({"content": second}), None),
        chunk(&json!({}), Some("stop")),
        usage(),
    ]
}

/// One call of the shell tool, its arguments cut in the middle of a word.
fn tool_call() -> Vec<Value> {
    let arguments = json!({"command": TOOL_COMMAND}).to_string();
    let (first, second) = arguments.split_at(arguments.len() / 2);
    let call = |call: Value| chunk(&json!({"tool_calls": [call]}), None);
    vec![
        chunk(&json!({"role": "assistant", "content": null}), None),
        call(json!({"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "shell", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": first}})),
        call(json!({"index": 0, "function": {"arguments": second}})),
        chunk(&json!({}), Some("tool_calls")),
        usage(),
    ]
}

fn stream(chunks: &[Value], done: bool, ending: Ending) -> Answer {
    let mut parts = vec![head(200, "text/event-stream", "")];
    parts.extend(chunks.iter().map(|chunk| format!("data: {chunk}\n\n")));
    if done {
        parts.push("data: [DONE]\n\n".to_owned());
    }
    Answer { parts, ending }
}

fn refusal(status: u16, headers: &str, code: &str, message: &str) -> Answer {
    let body = json!({"error": {"message": message, "type": code, "param": null, "code": code}});
    let parts = vec![head(status, "application/json", headers), body.to_string()];
    Answer { parts, ending: Ending::Close }
}

/// The end of the body is the end of the connection.
fn head(status: u16, content_type: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status} Test\r\ncontent-type: {content_type}\r\n{headers}connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn ask(scenario: &str, earlier: usize, body: Value) -> String {
        let request = Request {
            scenario: scenario.to_owned(),
            path: "/v1/chat/completions".to_owned(),
            headers: HashMap::new(),
            body,
        };
        to(&request, earlier).parts.concat()
    }

    #[test]
    fn the_second_try_after_a_rate_limit_succeeds() {
        assert!(ask("rate-limit-once", 0, Value::Null).starts_with("HTTP/1.1 429"));
        assert!(ask("rate-limit-once", 1, Value::Null).ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn a_tool_is_asked_for_once() {
        let first = ask("tool", 0, json!({"messages": [{"role": "user"}]}));
        assert!(first.contains("tool_calls"));
        let second = ask("tool", 1, json!({"messages": [{"role": "user"}, {"role": "tool"}]}));
        assert!(!second.contains("tool_calls"));
    }
}
