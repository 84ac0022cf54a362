//! A streamed chat completion put together from its server-sent events, within bounds.

use protocol::failure::FailureReason;
use serde::Deserialize;

use crate::{
    agent::conversation::{Call, Reply, Usage},
    failure::{ApiError, Failure},
    lines::{Lines, Piece},
};

/// Longest line of the stream. A longer one ends the answer as a network error.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Longest answer: its text and the arguments of its calls together. A longer one is a failure.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Most bytes of one answer's stream, whatever is in them. More is a failure.
const MAX_STREAM_BYTES: usize = 64 << 20;

/// Longest name of a tool, and longest id of a call. A longer one is a failure.
const MAX_NAME_BYTES: usize = 256;

/// Most tools called in one answer. More is a failure.
const MAX_CALLS: usize = 128;

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<WireUsage>,
    error: Option<serde_json::Value>,
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
}

/// An answer in the making.
pub(crate) struct Assembly {
    lines: Lines,
    reply: Reply,
    bytes: usize,
    streamed: usize,
    refusal: String,
    finish: Option<String>,
    done: bool,
}

impl Assembly {
    pub(crate) fn new() -> Self {
        Self {
            lines: Lines::new(MAX_LINE_BYTES),
            reply: Reply::default(),
            bytes: 0,
            streamed: 0,
            refusal: String::new(),
            finish: None,
            done: false,
        }
    }

    /// Takes bytes as they come and gives back the text in them; nothing after the stream's own end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        self.streamed = self.streamed.saturating_add(bytes.len());
        if self.streamed > MAX_STREAM_BYTES {
            return Err(too_much());
        }
        self.lines.push(bytes);
        let mut text = String::new();
        while let Some(piece) = self.lines.pop() {
            let Piece::Line(line) = piece else {
                return Err(broken("a line of its stream is longer than 1 MiB"));
            };
            self.line(&line, &mut text)?;
        }
        Ok(text)
    }

    pub(crate) fn done(&self) -> bool {
        self.done
    }

    fn line(&mut self, line: &[u8], text: &mut String) -> Result<(), Failure> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
        }
        if self.done || data.is_empty() {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data)
            .map_err(|error| broken(&format!("its stream holds no JSON: {error}")))?;
        if let Some(error) = chunk.error {
            return Err(ApiError::read(&serde_json::json!({"error": error}).to_string()).failure(0));
        }
        if let Some(usage) = chunk.usage {
            self.reply.usage =
                Usage { input_tokens: usage.prompt_tokens, output_tokens: usage.completion_tokens };
        }
        for choice in chunk.choices.into_iter().take(1) {
            if let Some(delta) = choice.delta {
                self.delta(delta, text)?;
            }
            self.finish = choice.finish_reason.or(self.finish.take());
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta, text: &mut String) -> Result<(), Failure> {
        if let Some(content) = delta.content {
            self.count(content.len())?;
            self.reply.text.push_str(&content);
            text.push_str(&content);
        }
        if let Some(refusal) = delta.refusal {
            self.count(refusal.len())?;
            self.refusal.push_str(&refusal);
        }
        for part in delta.tool_calls.unwrap_or_default() {
            let calls = &mut self.reply.calls;
            // Without an index a part that brings an id begins a call, any other goes on with the last.
            let fallback = if part.id.is_some() { calls.len() } else { calls.len().max(1) - 1 };
            let index = part.index.unwrap_or(fallback);
            if index >= MAX_CALLS {
                return Err(too_much());
            }
            if index >= calls.len() {
                calls.resize(index + 1, Call::default());
            }
            let (mut name, mut arguments) = (String::new(), String::new());
            if let Some(function) = part.function {
                name = function.name.unwrap_or_default();
                arguments = function.arguments.unwrap_or_default();
            }
            let call = &mut calls[index];
            if let Some(id) = part.id.filter(|id| !id.is_empty()) {
                call.id = id;
            }
            call.name.push_str(&name);
            call.arguments.push_str(&arguments);
            if call.name.len().max(call.id.len()) > MAX_NAME_BYTES {
                return Err(too_much());
            }
            self.count(name.len() + arguments.len())?;
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes > MAX_REPLY_BYTES { Err(too_much()) } else { Ok(()) }
    }

    /// The answer, once the stream is over.
    pub(crate) fn finish(self) -> Result<Reply, Failure> {
        let mut reply = self.reply;
        if !self.refusal.is_empty() {
            return Err(Failure::new(
                FailureReason::ContentRefused,
                format!("the model refused: {}", self.refusal),
            ));
        }
        match self.finish.as_deref() {
            Some("content_filter") => Err(Failure::new(
                FailureReason::ContentRefused,
                "the endpoint's content filter ended the answer",
            )),
            Some("length") if reply.calls.is_empty() => Err(Failure::new(
                FailureReason::AgentLimit,
                "the model's answer reached the endpoint's bound on its length",
            )),
            None => Err(broken("its stream ended before the answer did")),
            Some(_) => {
                reply.calls.retain(|call| !call.name.is_empty());
                for (index, call) in reply.calls.iter_mut().enumerate() {
                    if call.id.is_empty() {
                        call.id = format!("call_{index}");
                    }
                }
                reply.last = reply.calls.is_empty();
                Ok(reply)
            }
        }
    }
}

fn broken(what: &str) -> Failure {
    Failure::new(FailureReason::NetworkError, format!("the model's endpoint: {what}"))
}

fn too_much() -> Failure {
    Failure::new(FailureReason::AgentLimit, "the model's answer is over the bound on its size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_together(stream: &str) -> Result<Reply, Failure> {
        let mut assembly = Assembly::new();
        // Byte by byte: where the network cuts must not matter.
        for byte in stream.as_bytes() {
            assembly.push(&[*byte])?;
        }
        assembly.finish()
    }

    #[test]
    fn calls_are_put_together_from_their_parts() {
        let reply = put_together(
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\n\
             : a comment\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"shell\",\"arguments\":\"{\\\"comm\"}}]}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"read_file\",\"arguments\":\"{}\"}}]}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"and\\\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n\
             data: [DONE]\n\n",
        )
        .unwrap();
        assert_eq!(reply.text, "Hé");
        assert_eq!(reply.usage.total(), 10);
        assert!(!reply.last);
        let calls: Vec<_> =
            reply.calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("a", "{\"command\":1}"), ("b", "{}")]);
    }

    #[test]
    fn every_part_of_an_answer_is_bounded() {
        let call = |id: &str, name: &str| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"{id}\",\
                 \"function\":{{\"name\":\"{name}\"}}}}]}}}}]}}\n"
            )
        };
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for stream in [call(&long, "shell"), call("id", &long)] {
            assert_eq!(put_together(&stream).unwrap_err().reason, FailureReason::AgentLimit);
        }
        // Lines that say nothing, for ever.
        let mut assembly = Assembly::new();
        let comments = ": still there\n".repeat(10_000);
        let ended = (0..1_000).try_for_each(|_| assembly.push(comments.as_bytes()).map(drop));
        assert_eq!(ended.unwrap_err().reason, FailureReason::AgentLimit);
    }

    #[test]
    fn what_is_no_answer_is_a_failure_with_a_reason() {
        use FailureReason as R;
        for (stream, reason) in [
            ("", R::NetworkError),
            ("<html>\n", R::NetworkError),
            ("data: <html>\n", R::NetworkError),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n", R::NetworkError),
            ("data: {\"error\":{\"code\":\"insufficient_quota\"}}\n", R::QuotaExhausted),
            ("data: {\"choices\":[{\"finish_reason\":\"content_filter\"}]}\n", R::ContentRefused),
            ("data: {\"choices\":[{\"finish_reason\":\"length\"}]}\n", R::AgentLimit),
        ] {
            assert_eq!(put_together(stream).unwrap_err().reason, reason, "{stream}");
        }
    }
}
