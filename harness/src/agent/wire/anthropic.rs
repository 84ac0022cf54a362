//! Anthropic's messages.

use serde_json::{Value, json};

use crate::{
    agent::{
        conversation::{Message, Usage},
        draft::{Draft, End, broken, told},
        tool::Tool,
    },
    failure::Failure,
};

/// The longest answer that is asked for, in tokens; the dialect wants one named.
const MAX_TOKENS: u32 = 16_000;

pub(super) fn body(model: &str, conversation: &[Message], tools: &[Tool]) -> Value {
    let tool = |tool: &Tool| {
        json!({
            "name": tool.wire_name,
            "description": tool.description,
            "input_schema": tool.input_schema,
        })
    };
    json!({
        "model": model,
        "max_tokens": MAX_TOKENS,
        "system": super::instructions(conversation),
        "messages": messages(conversation),
        "tools": tools.iter().map(tool).collect::<Vec<_>>(),
        "stream": true,
    })
}

/// The results of one answer's calls go back in one message.
fn messages(conversation: &[Message]) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    let mut results = false;
    for message in conversation {
        let was_results = std::mem::take(&mut results);
        match message {
            Message::System(_) => {}
            Message::User(text) => messages.push(json!({"role": "user", "content": text})),
            Message::Assistant { text, calls } => {
                let said = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
                let calls = calls.iter().map(|call| {
                    let input: Value = serde_json::from_str(&call.arguments)
                        .ok()
                        .filter(Value::is_object)
                        .unwrap_or_else(|| json!({}));
                    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
                });
                let content: Vec<_> = said.into_iter().chain(calls).collect();
                // One without content is refused, and a model may have had nothing to say.
                if !content.is_empty() {
                    messages.push(json!({"role": "assistant", "content": content}));
                }
            }
            Message::Tool { id, output } => {
                results = true;
                let result = json!({"type": "tool_result", "tool_use_id": id, "content": output});
                match messages.last_mut().filter(|_| was_results) {
                    Some(last) => {
                        if let Some(content) = last["content"].as_array_mut() {
                            content.push(result);
                        }
                    }
                    None => messages.push(json!({"role": "user", "content": [result]})),
                }
            }
        }
    }
    messages
}

pub(super) fn event(data: &[u8], draft: &mut Draft) -> Result<(), Failure> {
    let event: Value = serde_json::from_slice(data)
        .map_err(|error| broken(&format!("its stream holds no JSON: {error}")))?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let count = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let index = || {
        let index = count("/index").and_then(|n| usize::try_from(n).ok());
        index.unwrap_or_default()
    };
    match text("/type") {
        "message_start" => {
            let cached = count("/message/usage/cache_read_input_tokens").unwrap_or(0);
            let written = count("/message/usage/cache_creation_input_tokens").unwrap_or(0);
            let input = count("/message/usage/input_tokens").unwrap_or(0);
            draft.usage(Usage {
                input_tokens: input.saturating_add(cached).saturating_add(written),
                cached_input_tokens: cached,
                output_tokens: count("/message/usage/output_tokens").unwrap_or(0),
            });
        }
        "content_block_start" if text("/content_block/type") == "tool_use" => {
            let id = text("/content_block/id").to_owned();
            draft.call(index(), Some(id), text("/content_block/name"), "")?;
        }
        "content_block_delta" => match text("/delta/type") {
            "text_delta" => draft.text(text("/delta/text"))?,
            "input_json_delta" => draft.call(index(), None, "", text("/delta/partial_json"))?,
            _ => {}
        },
        "message_delta" => {
            if let Some(output_tokens) = count("/usage/output_tokens") {
                draft.output_tokens(output_tokens);
            }
            draft.end(match text("/delta/stop_reason") {
                "refusal" => End::Refused,
                "max_tokens" | "model_context_window_exceeded" => End::Length,
                _ => End::Done,
            });
        }
        "message_stop" => draft.done(),
        "error" => return Err(told(&event["error"])),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_said_nothing_is_not_repeated() {
        let silent = Message::Assistant { text: String::new(), calls: Vec::new() };
        let said = [Message::User("a".to_owned()), silent, Message::User("b".to_owned())];
        let roles: Vec<_> = messages(&said).iter().map(|message| message["role"].clone()).collect();
        assert_eq!(roles, ["user", "user"]);
    }
}
