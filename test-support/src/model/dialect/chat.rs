//! OpenAI's chat completions.

use serde_json::{Value, json};

use super::{Facts, halves, names};
use crate::model::{http::data, reply::Reply};

pub(super) fn facts(body: &Value) -> Facts {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.last().filter(|message| message["role"] == "tool");
    Facts {
        after_tool: last.is_some(),
        tool_said: last.map(|message| message["content"].to_string()).unwrap_or_default(),
        results: messages.iter().filter(|message| message["role"] == "tool").count(),
        tools: names(&body["tools"], "/function/name").collect(),
        users: messages.iter().filter(|message| message["role"] == "user").count(),
    }
}

pub(super) fn stream(reply: &Reply) -> Vec<String> {
    let mut chunks = match reply {
        Reply::Text(text) => {
            let [first, second] = halves(text);
            vec![
                chunk(&json!({"role": "assistant", "content": ""}), None),
                chunk(&json!({"content": first}), None),
                chunk(&json!({"content": second}), None),
                chunk(&json!({}), Some("stop")),
            ]
        }
        Reply::Refused => vec![
            chunk(&json!({"role": "assistant", "content": ""}), None),
            chunk(&json!({}), Some("content_filter")),
        ],
        Reply::Call { tool, input } => {
            let arguments = input.to_string();
            let [first, second] = halves(&arguments);
            let call = |call: Value| chunk(&json!({"tool_calls": [call]}), None);
            vec![
                chunk(&json!({"role": "assistant", "content": null}), None),
                call(json!({"index": 0, "id": "call_1", "type": "function",
                    "function": {"name": tool, "arguments": ""}})),
                call(json!({"index": 0, "function": {"arguments": first}})),
                call(json!({"index": 0, "function": {"arguments": second}})),
                chunk(&json!({}), Some("tool_calls")),
            ]
        }
    };
    chunks.push(json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": "test-model",
        "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }));
    chunks.iter().map(data).chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn chunk(delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": "test-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}
