//! `OpenAI`'s chat completions.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    agent::{
        conversation::{Call, Message, Usage},
        draft::{Draft, End, broken, told},
        tool::Tool,
    },
    failure::Failure,
};

pub(super) fn body(model: &str, conversation: &[Message], tools: &[Tool]) -> Value {
    let function = |tool: &Tool| {
        json!({
            "type": "function",
            "function": {
                "name": tool.wire_name,
                "description": tool.description,
                "parameters": tool.input_schema,
            },
        })
    };
    json!({
        "model": model,
        "messages": conversation.iter().map(message).collect::<Vec<_>>(),
        "tools": tools.iter().map(function).collect::<Vec<_>>(),
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

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: u64,
}

pub(super) fn event(data: &[u8], draft: &mut Draft) -> Result<(), Failure> {
    if data == b"[DONE]" {
        draft.done();
        return Ok(());
    }
    let chunk: Chunk = serde_json::from_slice(data)
        .map_err(|error| broken(&format!("its stream holds no JSON: {error}")))?;
    if let Some(error) = chunk.error {
        return Err(told(&error));
    }
    if let Some(usage) = chunk.usage {
        draft.usage(Usage {
            input_tokens: usage.prompt_tokens,
            cached_input_tokens: usage.prompt_tokens_details.map_or(0, |more| more.cached_tokens),
            output_tokens: usage.completion_tokens,
        });
    }
    for choice in chunk.choices.into_iter().take(1) {
        if let Some(delta) = choice.delta {
            if let Some(content) = delta.content {
                draft.text(&content)?;
            }
            if let Some(refusal) = delta.refusal {
                draft.refusal(&refusal)?;
            }
            for part in delta.tool_calls.unwrap_or_default() {
                call_part(part, draft)?;
            }
        }
        if let Some(reason) = choice.finish_reason {
            draft.end(match reason.as_str() {
                "content_filter" => End::Refused,
                "length" => End::Length,
                _ => End::Done,
            });
        }
    }
    Ok(())
}

fn call_part(part: CallDelta, draft: &mut Draft) -> Result<(), Failure> {
    // Without an index a part that brings an id begins a call, any other goes on with the last.
    let calls = draft.calls();
    let fallback = if part.id.is_some() { calls } else { calls.max(1) - 1 };
    let (mut name, mut arguments) = (String::new(), String::new());
    if let Some(function) = part.function {
        name = function.name.unwrap_or_default();
        arguments = function.arguments.unwrap_or_default();
    }
    draft.call(part.index.unwrap_or(fallback), part.id, &name, &arguments)
}
