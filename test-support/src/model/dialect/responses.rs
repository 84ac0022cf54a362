//! OpenAI's responses. A tool in a namespace goes by `namespace/name` among the facts.

use serde_json::{Value, json};

use super::{Facts, halves};
use crate::model::{http::named, reply::Reply};

pub(super) fn facts(body: &Value) -> Facts {
    let input = body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_result =
        |item: &&Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"));
    let last = input.last().filter(is_result);
    Facts {
        results: input.iter().filter(is_result).count(),
        after_tool: last.is_some(),
        tool_said: last.map(|item| item["output"].to_string()).unwrap_or_default(),
        tools: tools(&body["tools"], ""),
        users: input.iter().filter(|item| item["role"] == "user").count(),
    }
}

fn tools(list: &Value, space: &str) -> Vec<String> {
    let mut all = Vec::new();
    for tool in list.as_array().into_iter().flatten() {
        let name = tool["name"].as_str().unwrap_or_default();
        if tool["type"] == "namespace" {
            all.extend(tools(&tool["tools"], &format!("{name}/")));
        } else if !name.is_empty() {
            all.push(format!("{space}{name}"));
        }
    }
    all
}

pub(super) fn stream(reply: &Reply) -> Vec<String> {
    let response = |status: &str, output: Value| {
        json!({"id": "resp_test", "object": "response", "created_at": 1, "status": status,
            "model": "test-model", "output": output,
            "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 3},
                "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 18}})
    };
    let Some(item) = item(reply) else {
        let mut refused = response("incomplete", json!([]));
        refused["incomplete_details"] = json!({"reason": "content_filter"});
        return vec![named(&json!({"type": "response.incomplete", "response": refused}))];
    };
    let mut events =
        vec![json!({"type": "response.created", "response": response("in_progress", json!([]))})];
    events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": item}));
    match reply {
        Reply::Text(text) => {
            events.extend(halves(text).map(|delta| {
                json!({"type": "response.output_text.delta", "item_id": "item_1",
                    "output_index": 0, "content_index": 0, "delta": delta})
            }));
        }
        Reply::Call { input, .. } => {
            let arguments = input.to_string();
            events.extend(halves(&arguments).map(|delta| {
                json!({"type": "response.function_call_arguments.delta", "item_id": "item_1",
                    "output_index": 0, "delta": delta})
            }));
        }
        Reply::Refused => {}
    }
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    let done = response("completed", json!([item]));
    events.push(json!({"type": "response.completed", "response": done}));
    events.iter().map(named).collect()
}

/// What stands in its output, if there is anything.
fn item(reply: &Reply) -> Option<Value> {
    Some(match reply {
        Reply::Refused => return None,
        Reply::Text(text) => json!({"type": "message", "id": "item_1", "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        Reply::Call { tool, input } => {
            let mut item = json!({"type": "function_call", "id": "item_1", "call_id": "call_1",
                "status": "completed", "name": tool, "arguments": input.to_string()});
            if let Some((space, name)) = tool.split_once('/') {
                item["namespace"] = json!(space);
                item["name"] = json!(name);
            }
            item
        }
    })
}
