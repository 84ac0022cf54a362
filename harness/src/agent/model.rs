//! What the loop says to a model and hears from it, whatever the model is.

use serde_json::Value;

use crate::{
    agent::{openai::OpenaiChat, script::Script},
    failure::Failure,
    feed::Feed,
};

/// One entry of the conversation, in the order it was said.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    System(String),
    User(String),
    Assistant { text: String, calls: Vec<Call> },
    Tool { id: String, output: String },
}

/// A tool the model wants run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON as the model wrote it: it may be none.
    pub(crate) arguments: String,
}

impl Call {
    /// The arguments for people: as JSON, or as the text they are.
    pub(crate) fn input(&self) -> Value {
        serde_json::from_str(&self.arguments)
            .unwrap_or_else(|_| Value::String(self.arguments.clone()))
    }
}

/// One answer of a model. Its text was already sent as events.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) usage: Usage,
    /// The text is the final answer.
    pub(crate) last: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, more: Self) {
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
    }

    pub(crate) fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Who answers. A closed set: an enum says so.
pub(crate) enum Model {
    OpenaiChat(OpenaiChat),
    Scripted(Script),
}

impl Model {
    pub(crate) fn dialect(&self) -> &'static str {
        match self {
            Self::OpenaiChat(_) => "openai_chat",
            Self::Scripted(_) => "scripted",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::OpenaiChat(model) => model.name(),
            Self::Scripted(script) => script.name(),
        }
    }

    /// Whether no model made what comes from here; every event it leads to says so.
    pub(crate) fn scripted(&self) -> bool {
        matches!(self, Self::Scripted(_))
    }

    /// The next answer. Its text goes to `feed` while it comes.
    pub(crate) async fn reply(
        &mut self,
        conversation: &[Message],
        feed: &Feed,
    ) -> Result<Reply, Failure> {
        match self {
            Self::OpenaiChat(model) => model.reply(conversation, feed).await,
            Self::Scripted(script) => Ok(script.reply(feed).await),
        }
    }
}
