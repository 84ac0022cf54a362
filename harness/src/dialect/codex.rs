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
                let message = text(line, "/error/message").unwrap_or_default().to_owned();
                said.fail(Told { message, ..Told::default() });
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
            events.push(Event::ModelRetry { attempt, wait_ms: None, message });
        }
        None => {
            said.fail(Told { message: message.to_owned(), ..Told::default() });
        }
    }
}
