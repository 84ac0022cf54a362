//! `OpenAI`'s responses. The conversation is sent whole each time, and kept nowhere.

use serde_json::{Value, json};

use crate::{
    agent::{
        conversation::{Message, Usage},
        draft::{Draft, End, broken, told},
        tool::Tool,
    },
    failure::Failure,
};

pub(super) fn body(model: &str, conversation: &[Message], tools: &[Tool]) -> Value {
    let function = |tool: &Tool| {
        json!({
            "type": "function",
            "name": tool.wire_name,
            "description": tool.description,
            "parameters": tool.input_schema,
        })
    };
    json!({
        "model": model,
        "instructions": super::instructions(conversation),
        "input": conversation.iter().flat_map(items).collect::<Vec<_>>(),
        "tools": tools.iter().map(function).collect::<Vec<_>>(),
        "stream": true,
        "store": false,
    })
}

fn items(message: &Message) -> Vec<Value> {
    match message {
        Message::System(_) => Vec::new(),
        Message::User(text) => {
            vec![json!({"role": "user", "content": [{"type": "input_text", "text": text}]})]
        }
        Message::Assistant { text, calls } => {
            let said = (!text.is_empty()).then(
                || json!({"role": "assistant", "content": [{"type": "output_text", "text": text}]}),
            );
            let calls = calls.iter().map(|call| {
                json!({"type": "function_call", "call_id": call.id, "name": call.name,
                    "arguments": call.arguments})
            });
            said.into_iter().chain(calls).collect()
        }
        Message::Tool { id, output } => {
            vec![json!({"type": "function_call_output", "call_id": id, "output": output})]
        }
    }
}

pub(super) fn event(data: &[u8], draft: &mut Draft) -> Result<(), Failure> {
    if data == b"[DONE]" {
        return Ok(());
    }
    let event: Value = serde_json::from_slice(data)
        .map_err(|error| broken(&format!("its stream holds no JSON: {error}")))?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let index = || {
        let index = event["output_index"].as_u64().and_then(|n| usize::try_from(n).ok());
        index.unwrap_or_default()
    };
    match text("/type") {
        "response.output_text.delta" => draft.text(text("/delta"))?,
        "response.refusal.delta" => draft.refusal(text("/delta"))?,
        "response.output_item.added" if text("/item/type") == "function_call" => {
            let id = text("/item/call_id").to_owned();
            draft.call(index(), Some(id), text("/item/name"), "")?;
        }
        "response.function_call_arguments.delta" => {
            draft.call(index(), None, "", text("/delta"))?;
        }
        "response.completed" => ended(&event["response"], End::Done, draft),
        "response.incomplete" => {
            let filtered = text("/response/incomplete_details/reason") == "content_filter";
            let end = if filtered { End::Refused } else { End::Length };
            ended(&event["response"], end, draft);
        }
        "response.failed" => return Err(told(&event["response"]["error"])),
        "error" => {
            return Err(told(&json!({"message": text("/message"), "code": text("/code")})));
        }
        _ => {}
    }
    Ok(())
}

fn ended(response: &Value, end: End, draft: &mut Draft) {
    let count = |pointer: &str| response.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    draft.usage(Usage {
        input_tokens: count("/usage/input_tokens"),
        cached_input_tokens: count("/usage/input_tokens_details/cached_tokens"),
        output_tokens: count("/usage/output_tokens"),
    });
    draft.end(end);
    draft.done();
}
