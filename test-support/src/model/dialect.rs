//! The four languages that vendors' endpoints speak, as far as their clients look: what a request says, and how an
//! answer or an error is put.

mod anthropic;
mod chat;
mod gemini;
mod responses;

use serde_json::{Value, json};

use super::{http::Answer, reply::Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Responses,
    Anthropic,
    Gemini,
}

/// What matters of a request.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The last thing said is a tool's result.
    pub(super) after_tool: bool,
    pub(super) tool_said: String,
    /// Results of tools, in all.
    pub(super) results: usize,
    /// The names of the tools offered.
    pub(super) tools: Vec<String>,
    /// Messages of the user's.
    pub(super) users: usize,
}

impl Dialect {
    /// By the path, without its query.
    pub(super) fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Anthropic,
            _ if path.starts_with("/v1beta/models/") => Self::Gemini,
            _ => return None,
        })
    }

    pub(super) fn facts(self, body: &Value) -> Facts {
        match self {
            Self::Chat => chat::facts(body),
            Self::Responses => responses::facts(body),
            Self::Anthropic => anthropic::facts(body),
            Self::Gemini => gemini::facts(body),
        }
    }

    pub(super) fn reply(self, reply: &Reply, path: &str) -> Answer {
        match self {
            Self::Chat => Answer::stream(chat::stream(reply)),
            Self::Responses => Answer::stream(responses::stream(reply)),
            Self::Anthropic => Answer::stream(anthropic::stream(reply)),
            Self::Gemini if path.contains(":generateContent") => {
                Answer::json(200, "", &gemini::whole(reply))
            }
            Self::Gemini => Answer::stream(gemini::stream(reply)),
        }
    }

    /// The body of an error; `code` is the word of the OpenAI dialects, the others have their own.
    pub(super) fn error(self, status: u16, code: &str, message: &str) -> Value {
        match self {
            Self::Chat | Self::Responses => {
                json!({"error": {"message": message, "type": code, "param": null, "code": code}})
            }
            Self::Anthropic => anthropic::error(status, code, message),
            Self::Gemini => gemini::error(status, code, message),
        }
    }

    /// Too many requests, and none more for so many seconds. Google says so in the body.
    pub(super) fn limited(self, seconds: u64) -> Answer {
        let mut body = self.error(429, "rate_limit_exceeded", "Rate limit reached");
        if self == Self::Gemini && seconds > 0 {
            body["error"]["details"] = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{seconds}s")}]);
        }
        Answer::json(429, &format!("retry-after: {seconds}\r\n"), &body)
    }

    pub(super) fn overloaded(self) -> u16 {
        if self == Self::Anthropic { 529 } else { 503 }
    }

    /// The status of an account without credit.
    pub(super) fn unpaid(self) -> u16 {
        if self == Self::Anthropic { 400 } else { 429 }
    }
}

fn names<'a>(list: &'a Value, pointer: &'a str) -> impl Iterator<Item = String> + 'a {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(move |item| Some(item.pointer(pointer)?.as_str()?.to_owned()))
}

/// A text as two pieces, so that a reader has to put it together.
fn halves(text: &str) -> [&str; 2] {
    let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
    [first, second]
}
