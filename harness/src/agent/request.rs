//! The request of a chat completion: the conversation and the tools in the dialect's words.

use serde_json::{Value, json};

use crate::agent::{
    conversation::{Call, Message},
    tools,
};

/// The body that asks `model` for its next answer, streamed.
pub(super) fn body(model: &str, conversation: &[Message]) -> Value {
    json!({
        "model": model,
        "messages": conversation.iter().map(message).collect::<Vec<_>>(),
        "tools": tools::declarations(),
        "stream": true,
        "stream_options": {"include_usage": true},
    })
}

fn message(message: &Message) -> Value {
    match message {
        Message::System(text) => json!({"role": "system", "content": text}),
        Message::User(text) => json!({"role": "user", "content": text}),
        Message::Assistant { text, calls } if calls.is_empty() => {
            json!({"role": "assistant", "content": text})
        }
        Message::Assistant { text, calls } => json!({
            "role": "assistant",
            "content": (!text.is_empty()).then_some(text),
            "tool_calls": calls.iter().map(call).collect::<Vec<_>>(),
        }),
        Message::Tool { id, output } => {
            json!({"role": "tool", "tool_call_id": id, "content": output})
        }
    }
}

fn call(call: &Call) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}
