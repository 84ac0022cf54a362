//! `gemini --output-format stream-json`. Its last word is `result`, with exit code 0 even where that says `error`.

use std::time::Duration;

use protocol::event::Event;
use serde_json::Value;

use super::{
    Said, Told, named, say,
    value::{content, count, text},
};

/// Running text is shown in whole lines once there is this much of it, in bytes.
const SHOW_AT_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Gemini {
    /// Text not shown yet.
    pending: String,
    /// What was said since the last tool result.
    answer: String,
}

impl Gemini {
    pub(super) fn read(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
        let kind = text(line, "/type");
        if kind == Some("message") && text(line, "/role") == Some("assistant") {
            self.speak(text(line, "/content").unwrap_or_default(), events);
            return true;
        }
        self.flush(events);
        match kind {
            Some("init") => {
                said.session("gemini", text(line, "/session_id"), events);
                let model = named(text(line, "/model"));
                events.push(Event::Model { dialect: "gemini".to_owned(), model, scripted: false });
            }
            // The prompt comes back as the user's message.
            Some("message") => {}
            Some("tool_use") => {
                let id = text(line, "/tool_id").unwrap_or_default();
                let name = text(line, "/tool_name").unwrap_or_default();
                said.call(id, name, &line["parameters"], events);
            }
            Some("tool_result") => {
                self.answer.clear();
                let ok = text(line, "/status") == Some("success");
                let output = match text(line, "/error/message") {
                    Some(error) => error.to_owned(),
                    None => content(line.pointer("/output")),
                };
                said.result(text(line, "/tool_id").unwrap_or_default(), ok, &output, None, events);
                said.turns += 1;
            }
            Some("error") => {
                let message = text(line, "/message").unwrap_or_default();
                if text(line, "/severity") == Some("error") {
                    said.fail(Told { message: message.to_owned(), ..Told::default() });
                } else {
                    let text = super::cut(message, super::MAX_ERROR_BYTES).0;
                    events.push(Event::Notice { text });
                }
            }
            Some("result") => self.result(line, said, events),
            _ => return false,
        }
        true
    }

    fn speak(&mut self, words: &str, events: &mut Vec<Event>) {
        if self.answer.len() < super::MAX_ANSWER_BYTES {
            self.answer.push_str(words);
        }
        self.pending.push_str(words);
        if self.pending.len() >= SHOW_AT_BYTES
            && let Some(end) = self.pending.rfind('\n')
        {
            let rest = self.pending.split_off(end + 1);
            self.flush(events);
            self.pending = rest;
        }
        if self.pending.len() > super::MAX_ANSWER_BYTES {
            self.flush(events);
        }
    }

    pub(super) fn flush(&mut self, events: &mut Vec<Event>) {
        say(&std::mem::take(&mut self.pending), events);
    }

    fn result(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) {
        said.turns += 1;
        said.input_tokens = count(line, "/stats/input_tokens");
        said.cached_input_tokens = count(line, "/stats/cached");
        said.output_tokens = count(line, "/stats/output_tokens");
        said.usage(events);
        let success = text(line, "/status") == Some("success");
        if success {
            said.answer(&self.answer);
        } else if let Some(message) = text(line, "/error/message") {
            said.fail(Told {
                message: message.to_owned(),
                status: code(message),
                class: text(line, "/error/type").map(str::to_owned),
                retry_after: retry_after(message),
            });
        }
        said.ended(success, events);
    }
}

/// `… Suggested retry after 2s.`
fn retry_after(message: &str) -> Option<Duration> {
    let rest = message.split("retry after ").nth(1)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let seconds = rest[digits.len()..].starts_with('s');
    digits.parse().ok().filter(|_| seconds).map(Duration::from_secs)
}

/// The status in the endpoint's JSON, which often stands whole in the message: `{"error": {"code": 429, …`.
fn code(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once("\"code\":")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|code| (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_the_whole_number_after_its_name() {
        assert_eq!(code(r#"[API Error: {"error":{"code":429,"message":"x"}}]"#), Some(429));
        assert_eq!(code("{\"error\": {\n  \"code\": 403\n}}"), Some(403));
        for other in [r#"{"code":4290}"#, r#"{"code":"429"}"#, "request 429 of port 503", ""] {
            assert_eq!(code(other), None, "{other}");
        }
    }
}
