//! An answer in the making, whatever dialect it comes in: within bounds, and judged when it is over.

use std::collections::BTreeMap;

use protocol::failure::FailureReason;
use serde_json::{Value, json};

use crate::{
    agent::conversation::{Call, Reply, Usage},
    failure::{ApiError, Failure},
};

/// Longest answer: its text and the arguments of its calls together. A longer one is a failure.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Longest name of a tool, and longest id of a call. A longer one is a failure.
const MAX_NAME_BYTES: usize = 256;

/// Most tools called in one answer, and the highest number one may have. More is a failure.
const MAX_CALLS: usize = 128;

/// How a model ended its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a text or with calls.
    Done,
    /// At the endpoint's bound on its length.
    Length,
    /// By a filter, or by its own refusal.
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// What was said and not yet taken.
    fresh: String,
    text: String,
    /// By the number the endpoint gives them.
    calls: BTreeMap<usize, Call>,
    usage: Usage,
    bytes: usize,
    refusal: String,
    end: Option<End>,
    done: bool,
}

impl Draft {
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.count(text.len())?;
        self.text.push_str(text);
        self.fresh.push_str(text);
        Ok(())
    }

    pub(crate) fn refusal(&mut self, text: &str) -> Result<(), Failure> {
        self.count(text.len())?;
        self.refusal.push_str(text);
        Ok(())
    }

    /// One past the highest number of a call.
    pub(crate) fn calls(&self) -> usize {
        self.calls.last_key_value().map_or(0, |(index, _)| index + 1)
    }

    /// Begins a call or goes on with it.
    pub(crate) fn call(
        &mut self,
        index: usize,
        id: Option<String>,
        name: &str,
        arguments: &str,
    ) -> Result<(), Failure> {
        if index >= MAX_CALLS {
            return Err(too_much());
        }
        let call = self.calls.entry(index).or_default();
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            call.id = id;
        }
        call.name.push_str(name);
        call.arguments.push_str(arguments);
        if call.name.len().max(call.id.len()) > MAX_NAME_BYTES {
            return Err(too_much());
        }
        self.count(name.len() + arguments.len())
    }

    pub(crate) fn usage(&mut self, usage: Usage) {
        self.usage = usage;
    }

    pub(crate) fn output_tokens(&mut self, tokens: u64) {
        self.usage.output_tokens = tokens;
    }

    pub(crate) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Nothing more comes.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The text that came since the last time.
    pub(super) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.fresh)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes > MAX_REPLY_BYTES { Err(too_much()) } else { Ok(()) }
    }

    /// The answer, once the stream is over.
    pub(super) fn finish(self) -> Result<Reply, Failure> {
        if !self.refusal.is_empty() {
            let message = format!("the model refused: {}", self.refusal);
            return Err(Failure::new(FailureReason::ContentRefused, message));
        }
        match self.end {
            Some(End::Refused) => Err(Failure::new(
                FailureReason::ContentRefused,
                "the endpoint's content filter ended the answer",
            )),
            Some(End::Length) if self.calls.is_empty() => Err(Failure::new(
                FailureReason::AgentLimit,
                "the model's answer reached the endpoint's bound on its length",
            )),
            None => Err(broken("its stream ended before the answer did")),
            Some(End::Length | End::Done) => {
                let mut calls: Vec<_> =
                    self.calls.into_values().filter(|call| !call.name.is_empty()).collect();
                for (index, call) in calls.iter_mut().enumerate() {
                    if call.id.is_empty() {
                        call.id = format!("call_{index}");
                    }
                }
                let last = calls.is_empty();
                Ok(Reply { text: self.text, calls, usage: self.usage, last })
            }
        }
    }
}

/// The endpoint's stream is no answer.
pub(crate) fn broken(what: &str) -> Failure {
    Failure::new(FailureReason::NetworkError, format!("the model's endpoint: {what}"))
}

pub(super) fn too_much() -> Failure {
    Failure::new(FailureReason::AgentLimit, "the model's answer is over the bound on its size")
}

/// An error told inside the stream.
pub(crate) fn told(error: &Value) -> Failure {
    ApiError::read(&json!({"error": error}).to_string()).failure(0)
}
