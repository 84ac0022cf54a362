//! How a conversation is put to a model's endpoint and its answer read: one module a dialect.

mod anthropic;
mod chat;
mod responses;

use protocol::spec::{Auth, HttpEndpoint};
use serde_json::Value;

use crate::{
    agent::{conversation::Message, draft::Draft, tool::Tool},
    failure::Failure,
};

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// `OpenAI`'s chat completions, and whoever else speaks them.
    Chat,
    /// `OpenAI`'s responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
}

impl Wire {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "openai_chat",
            Self::Responses => "openai_responses",
            Self::Anthropic => "anthropic",
        }
    }

    /// The path below the base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Anthropic => "/v1/messages",
        }
    }

    /// The body that asks for the next answer, streamed.
    pub(super) fn body(self, model: &str, conversation: &[Message], tools: &[Tool]) -> Value {
        match self {
            Self::Chat => chat::body(model, conversation, tools),
            Self::Responses => responses::body(model, conversation, tools),
            Self::Anthropic => anthropic::body(model, conversation, tools),
        }
    }

    /// The headers of an endpoint, its key among them.
    pub(super) fn headers(self, endpoint: &HttpEndpoint) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        if self == Self::Anthropic {
            headers.push(("anthropic-version".to_owned(), "2023-06-01".to_owned()));
        }
        if let Some(key) = &endpoint.api_key {
            headers.push(match (self, endpoint.auth) {
                (Self::Anthropic, Auth::ApiKey) => {
                    ("x-api-key".to_owned(), key.expose().to_owned())
                }
                _ => ("authorization".to_owned(), format!("Bearer {}", key.expose())),
            });
        }
        let more = endpoint.headers.iter();
        headers.extend(more.map(|(name, value)| (name.clone(), value.expose().to_owned())));
        headers
    }

    /// Takes the data of one server-sent event.
    pub(super) fn event(self, data: &[u8], draft: &mut Draft) -> Result<(), Failure> {
        match self {
            Self::Chat => chat::event(data, draft),
            Self::Responses => responses::event(data, draft),
            Self::Anthropic => anthropic::event(data, draft),
        }
    }
}

/// What the dialects with a field of its own for it put there.
fn instructions(conversation: &[Message]) -> String {
    let texts = conversation.iter().filter_map(|message| match message {
        Message::System(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n\n")
}
