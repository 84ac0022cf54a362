//! Claude Code's `--output-format stream-json`. Its last word is the `result` line: a failed run says
//! `subtype: success` there too, and only `is_error` tells them apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::event::Event;
use serde_json::Value;

use super::{
    Said, Told, named, say,
    value::{content, count, items, number, status, text},
};

/// Servers of one run whose health is told of; of more, the rest is not.
const MAX_SERVERS: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Claude {
    /// The class word of the last synthetic message, which the final line lacks.
    class: Option<String>,
    /// The account's limit refused: until when, in seconds since 1970; 0 where it is not said.
    limit: Option<u64>,
    /// How long it waited before it last asked again.
    waited: Option<Duration>,
}

/// Longest wait until a limit of an account's is lifted that is believed: they are of five hours and of a week.
const MAX_UNTIL: Duration = Duration::from_hours(8 * 24);

impl Claude {
    pub(super) fn read(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
        match (text(line, "/type"), text(line, "/subtype")) {
            (Some("system"), Some("init")) => {
                said.session("claude", text(line, "/session_id"), events);
                init(line, events);
            }
            (Some("system"), Some("api_retry")) => self.retry(line, said, events),
            (Some("system"), Some("permission_denied")) => events.push(Event::Notice {
                text: format!(
                    "a tool was refused by the provider's permissions: {}",
                    named(text(line, "/tool_name"))
                ),
            }),
            (Some("system"), Some("status")) | (Some("stream_event"), _) => {}
            (Some("assistant"), _) => return self.assistant(line, said, events),
            (Some("user"), _) => {
                for part in items(line, "/message/content") {
                    if text(part, "/type") == Some("tool_result") {
                        let id = text(part, "/tool_use_id").unwrap_or_default();
                        let ok = part.pointer("/is_error") != Some(&Value::Bool(true));
                        said.result(id, ok, &content(part.pointer("/content")), None, events);
                    }
                }
            }
            (Some("rate_limit_event"), _) => {
                if text(line, "/rate_limit_info/status") == Some("rejected") {
                    self.limit = Some(count(line, "/rate_limit_info/resetsAt"));
                }
            }
            (Some("result"), _) => self.result(line, said, events),
            _ => return false,
        }
        true
    }

    /// False when a part of it is not known.
    fn assistant(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
        if let Some(class) = text(line, "/error") {
            // Its text is the error's, and comes again in the result.
            self.class = Some(class.to_owned());
            return true;
        }
        let mut known = true;
        for part in items(line, "/message/content") {
            match text(part, "/type") {
                Some("text") => say(text(part, "/text").unwrap_or_default(), events),
                Some("tool_use") => {
                    let id = text(part, "/id").unwrap_or_default();
                    let name = text(part, "/name").unwrap_or_default();
                    said.call(id, name, part.pointer("/input").unwrap_or(&Value::Null), events);
                }
                _ => known = false,
            }
        }
        known
    }

    fn retry(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) {
        let status = status(line, "/error_status");
        let class = named(text(line, "/error").or(Some("unknown")));
        let wait_ms = number(line, "/retry_delay_ms");
        self.waited = wait_ms.map(Duration::from_millis);
        let attempt = u32::try_from(count(line, "/attempt")).unwrap_or(u32::MAX);
        let message = status.map_or_else(|| class.clone(), |status| format!("{class} ({status})"));
        let class = Some(class);
        said.retry =
            Some(Told { message: message.clone(), status, class, retry_after: self.waited });
        events.push(Event::ModelRetry { attempt, wait_ms, message });
    }

    fn result(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) {
        said.session("claude", text(line, "/session_id"), events);
        said.turns = u32::try_from(count(line, "/num_turns")).unwrap_or(u32::MAX);
        said.cached_input_tokens = count(line, "/usage/cache_read_input_tokens");
        said.input_tokens = count(line, "/usage/input_tokens")
            .saturating_add(count(line, "/usage/cache_creation_input_tokens"))
            .saturating_add(said.cached_input_tokens);
        said.output_tokens = count(line, "/usage/output_tokens");
        said.cost_usd = cost(line);
        said.usage(events);
        let failed = line.pointer("/is_error") == Some(&Value::Bool(true))
            || text(line, "/subtype").is_some_and(|subtype| subtype.starts_with("error"));
        if failed {
            let errors: Vec<_> = items(line, "/errors").filter_map(Value::as_str).collect();
            let message = text(line, "/result").map_or_else(|| errors.join("; "), str::to_owned);
            let status = status(line, "/api_error_status");
            let retry_after = match (self.limit, status) {
                (Some(resets_at), _) => until(resets_at),
                // The last wait of its own: as the endpoint asked for, or its own pauses, which grow.
                (None, Some(429 | 503 | 529)) => self.waited,
                _ => None,
            };
            let refused = text(line, "/stop_reason") == Some("refusal");
            let class = refused
                .then_some("refusal")
                .or(self.limit.map(|_| "usage_limit_reached"))
                .or(text(line, "/api_error"))
                .or(self.class.as_deref())
                .or(text(line, "/subtype").filter(|subtype| subtype.starts_with("error")))
                .or(text(line, "/terminal_reason"));
            said.fail(Told { message, status, class: class.map(str::to_owned), retry_after });
        } else {
            said.answer(text(line, "/result").unwrap_or_default());
        }
        said.ended(!failed, events);
    }
}

fn init(line: &Value, events: &mut Vec<Event>) {
    events.push(Event::Model {
        dialect: "anthropic".to_owned(),
        model: named(text(line, "/model")),
        scripted: false,
    });
    for server in items(line, "/mcp_servers").take(MAX_SERVERS) {
        let state = named(text(server, "/status").or(Some("unknown")));
        if !matches!(state.as_str(), "connected" | "pending") {
            let name = named(text(server, "/name"));
            events.push(Event::Notice { text: format!("the MCP server {name} is {state}") });
        }
    }
}

/// From now to a moment in seconds since 1970; nothing when it is over.
#[expect(
    clippy::disallowed_methods,
    reason = "the moment is of the vendor's clock, and only the wait is kept"
)]
fn until(moment: u64) -> Option<Duration> {
    let moment = UNIX_EPOCH.checked_add(Duration::from_secs(moment))?;
    let left = moment.duration_since(SystemTime::now()).ok()?;
    Some(left.min(MAX_UNTIL))
}

/// The total is cumulative over resumed sessions; what was used since the last result is this run's.
fn cost(line: &Value) -> Option<f64> {
    let since = line.pointer("/model_usage_since_last_result").and_then(Value::as_object);
    match since {
        Some(models) => {
            Some(models.values().filter_map(|model| model.pointer("/costUSD")?.as_f64()).sum())
        }
        None => line.pointer("/total_cost_usd")?.as_f64(),
    }
}
