//! Anthropic's messages.

use serde_json::{Value, json};

use super::{Facts, halves, names};
use crate::model::{http::named, reply::Reply};

pub(super) fn facts(body: &Value) -> Facts {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let result = |message: &Value| {
        let parts = message["content"].as_array()?;
        parts
            .iter()
            .rfind(|part| part["type"] == "tool_result")
            .map(|part| part["content"].to_string())
    };
    let said = messages.last().and_then(result);
    let mut tools: Vec<String> = names(&body["tools"], "/name").collect();
    // What a search of theirs brought is named in its result.
    let found = messages.iter().flat_map(references);
    tools.extend(found);
    // A search is not what the model was after.
    let searched = said.as_ref().is_some_and(|said| said.contains("tool_reference"));
    Facts {
        after_tool: said.is_some() && !searched,
        tool_said: said.unwrap_or_default(),
        results: messages.iter().filter_map(result).count(),
        tools,
        users: messages
            .iter()
            .filter(|message| message["role"] == "user" && result(message).is_none())
            .count(),
    }
}

fn references(message: &Value) -> Vec<String> {
    let parts = message["content"].as_array().into_iter().flatten();
    parts.flat_map(|part| names(&part["content"], "/tool_name").collect::<Vec<_>>()).collect()
}

pub(super) fn stream(reply: &Reply) -> Vec<String> {
    let usage = |output: u32| json!({"input_tokens": 11, "output_tokens": output, "cache_read_input_tokens": 3});
    let (block, deltas, stop) = match reply {
        Reply::Text(text) => (
            json!({"type": "text", "text": ""}),
            halves(text).map(|text| json!({"type": "text_delta", "text": text})),
            "end_turn",
        ),
        Reply::Refused => (
            json!({"type": "text", "text": ""}),
            halves("").map(|text| json!({"type": "text_delta", "text": text})),
            "refusal",
        ),
        Reply::Call { tool, input } => (
            json!({"type": "tool_use", "id": unlike("toolu"),
                "name": tool, "input": {}}),
            halves(&input.to_string())
                .map(|json| json!({"type": "input_json_delta", "partial_json": json})),
            "tool_use",
        ),
    };
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": unlike("msg"), "type": "message",
            "role": "assistant", "model": "test-model", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": usage(1)}}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
    ];
    events.extend(
        deltas.map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.push(json!({"type": "message_delta", "usage": usage(7),
        "delta": {"stop_reason": stop, "stop_sequence": null}}));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named).collect()
}

/// An id like no other: Claude Code puts messages of one id together.
fn unlike(prefix: &str) -> String {
    format!("{prefix}_{:016x}", getrandom::u64().unwrap_or_default())
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Value {
    let (kind, message) = match (status, code) {
        // Theirs is a bad request with a text.
        (_, "insufficient_quota") => ("invalid_request_error", "Your credit balance is too low"),
        (401, _) => ("authentication_error", "invalid x-api-key"),
        (429, _) => ("rate_limit_error", message),
        (529, _) => ("overloaded_error", message),
        (404, _) => ("not_found_error", message),
        _ => ("api_error", message),
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
