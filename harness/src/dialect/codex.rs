//! `codex exec --json`. Its last word is `turn.completed` or `turn.failed`; `error` lines are warnings until then.

use protocol::event::Event;
use serde_json::{Value, json};

use super::{
    Said, Told, say,
    value::{content, count, text},
};

#[derive(Debug, Default)]
pub(crate) struct Codex {
    /// What the thread had used before this run, since its counts go over the whole thread.
    before: Used,
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// What came from a cache included.
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

impl Codex {
    /// The thread has used this much before.
    pub(crate) fn goes_on(&mut self, before: Used) {
        self.before = before;
    }

    pub(super) fn read(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
        match text(line, "/type") {
            Some("thread.started") => said.session("codex", text(line, "/thread_id"), events),
            Some("turn.started") => said.turns += 1,
            Some("item.started") => return started(&line["item"], said, events),
            Some("item.updated") => {}
            Some("item.completed") => return completed(&line["item"], said, events),
            Some("error") => warn(text(line, "/message").unwrap_or_default(), said, events),
            Some("turn.completed") => {
                said.input_tokens =
                    count(line, "/usage/input_tokens").saturating_sub(self.before.input);
                said.cached_input_tokens =
                    count(line, "/usage/cached_input_tokens").saturating_sub(self.before.cached);
                said.output_tokens =
                    count(line, "/usage/output_tokens").saturating_sub(self.before.output);
                said.usage(events);
                said.ended(true, events);
            }
            Some("turn.failed") => {
                said.fail(told(text(line, "/error/message").unwrap_or_default()));
                said.ended(false, events);
            }
            _ => return false,
        }
        true
    }
}

fn started(item: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
    let id = text(item, "/id").unwrap_or_default();
    match text(item, "/type") {
        Some("command_execution") => {
            said.call(id, "shell", &json!({"command": item["command"]}), events);
        }
        Some("mcp_tool_call") => said.call(id, &tool(item), &item["arguments"], events),
        Some("file_change") => {
            said.call(id, "file_change", &json!({"changes": item["changes"]}), events);
        }
        Some("web_search") => said.call(id, "web_search", &json!({"query": item["query"]}), events),
        Some("agent_message" | "reasoning") => {}
        _ => return false,
    }
    true
}

fn completed(item: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
    let id = text(item, "/id").unwrap_or_default();
    let ok = text(item, "/status").is_none_or(|status| status == "completed");
    match text(item, "/type") {
        Some("agent_message") => {
            let message = text(item, "/text").unwrap_or_default();
            say(message, events);
            said.answer(message);
        }
        Some("command_execution") => {
            let ok = ok && item["exit_code"].as_i64().is_none_or(|code| code == 0);
            said.result(id, ok, text(item, "/aggregated_output").unwrap_or_default(), None, events);
        }
        Some("mcp_tool_call") => {
            let output = match text(item, "/error/message") {
                Some(error) => error.to_owned(),
                None => content(item.pointer("/result/content")),
            };
            said.result(id, ok, &output, None, events);
        }
        Some("file_change") => {
            // It may come without a beginning.
            if !said.calls.contains_key(id) {
                said.call(id, "file_change", &json!({"changes": item["changes"]}), events);
            }
            said.result(id, ok, "", None, events);
        }
        Some("web_search") => said.result(id, ok, "", None, events),
        Some("error") => {
            let text = text(item, "/message").unwrap_or_default().to_owned();
            events.push(Event::Notice { text: super::cut(&text, super::MAX_ERROR_BYTES).0 });
        }
        _ => return false,
    }
    true
}

fn tool(item: &Value) -> String {
    let part = |pointer| text(item, pointer).unwrap_or("unnamed");
    format!("{}.{}", part("/server"), part("/tool"))
}

/// `Reconnecting... 2/5 (why)`, or something else a person should know.
fn warn(message: &str, said: &mut Said, events: &mut Vec<Event>) {
    let retry = message.strip_prefix("Reconnecting... ").map(|rest| {
        let attempt = rest.split('/').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let why = rest.split_once('(').map_or(rest, |(_, why)| why.trim_end_matches(')'));
        (attempt, super::cut(why, super::MAX_ERROR_BYTES).0)
    });
    match retry {
        Some((attempt, message)) => {
            said.retry = Some(told(&message));
            events.push(Event::ModelRetry { attempt, wait_ms: None, message });
        }
        None => said.fail(told(message)),
    }
}

/// The endpoint's status, where the message has one, stands as Codex itself writes it; numbers elsewhere are the
/// endpoint's own words, an id or a port.
fn told(message: &str) -> Told {
    let status =
        ["unexpected status ", "exceeded retry limit, last status: "].iter().find_map(|sign| {
            let digits = message.strip_prefix(sign)?.split(' ').next()?;
            digits.parse().ok().filter(|status| (100..600).contains(status))
        });
    Told { message: message.to_owned(), status, ..Told::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_where_codex_writes_one() {
        for (message, status) in [
            ("exceeded retry limit, last status: 429 Too Many Requests", Some(429)),
            (
                "unexpected status 529 <unknown status code>: Overloaded, url: http://h:4010/v1",
                Some(529),
            ),
            ("unexpected status 500 Internal Server Error: request id: 429-503", Some(500)),
            ("The requested 429 tokens of req_401 are over the bound of 503", None),
            ("stream disconnected before completion: unexpected status 429", None),
            ("unexpected status 4290 of a thing", None),
        ] {
            assert_eq!(told(message).status, status, "{message}");
        }
    }
}
