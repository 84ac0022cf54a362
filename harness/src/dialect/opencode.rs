//! `opencode run --format json`. It has no last line: it succeeded when its last step stopped by itself and no
//! error was told.

use std::time::Duration;

use protocol::event::Event;
use serde_json::Value;

use super::{
    Said, Told, say,
    value::{content, count, number, status, text},
};

/// Steps in a row that ended for no reason and used no token. An endpoint that answers nonsense with 200 is asked
/// for ever; at the bound the provider is stopped.
const MAX_EMPTY_STEPS: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct Opencode {
    empty_steps: u32,
    /// The texts since the last tool call.
    answer: String,
}

impl Opencode {
    pub(super) fn read(&mut self, line: &Value, said: &mut Said, events: &mut Vec<Event>) -> bool {
        said.session("opencode", text(line, "/sessionID"), events);
        match text(line, "/type") {
            Some("step_start") => said.turns += 1,
            Some("text") => {
                let words = text(line, "/part/text").unwrap_or_default();
                say(words, events);
                self.answer.clear();
                self.answer.push_str(words);
            }
            Some("reasoning") => {}
            Some("tool_use") => tool(&line["part"], said, events),
            Some("step_finish") => self.step(&line["part"], said, events),
            Some("error") => {
                said.fail(told(&line["error"]));
                said.ended(false, events);
            }
            _ => return false,
        }
        true
    }

    fn step(&mut self, part: &Value, said: &mut Said, events: &mut Vec<Event>) {
        let cached = count(part, "/tokens/cache/read");
        let used = count(part, "/tokens/input")
            .saturating_add(count(part, "/tokens/cache/write"))
            .saturating_add(cached);
        let output = count(part, "/tokens/output").saturating_add(count(part, "/tokens/reasoning"));
        said.input_tokens = said.input_tokens.saturating_add(used);
        said.cached_input_tokens = said.cached_input_tokens.saturating_add(cached);
        said.output_tokens = said.output_tokens.saturating_add(output);
        if let Some(cost) = part.pointer("/cost").and_then(Value::as_f64) {
            said.cost_usd = Some(said.cost_usd.unwrap_or_default() + cost);
        }
        said.usage(events);
        match text(part, "/reason") {
            Some("stop") if said.error.is_none() => {
                said.answer(&self.answer);
                said.ended(true, events);
            }
            Some("tool-calls") => said.end = None,
            Some("unknown") if used == 0 && output == 0 => {
                self.empty_steps += 1;
                if self.empty_steps >= MAX_EMPTY_STEPS {
                    said.stuck = Some("its model's endpoint answers nothing, again and again");
                }
                return;
            }
            Some(reason) => {
                let message = format!("the model stopped for another reason: {reason}");
                said.fail(Told { message, class: Some(reason.to_owned()), ..Told::default() });
                said.end = Some(false);
            }
            None => said.end = None,
        }
        self.empty_steps = 0;
    }
}

/// A call comes with its result, once it is over.
fn tool(part: &Value, said: &mut Said, events: &mut Vec<Event>) {
    let id = text(part, "/callID").unwrap_or_default();
    let state = &part["state"];
    said.call(id, text(part, "/tool").unwrap_or_default(), &state["input"], events);
    let ok = text(state, "/status") == Some("completed")
        && state.pointer("/metadata/exit").and_then(Value::as_i64).is_none_or(|code| code == 0);
    let output = match text(state, "/error") {
        Some(error) => error.to_owned(),
        None => content(state.pointer("/output")),
    };
    let took = number(state, "/time/end")
        .zip(number(state, "/time/start"))
        .map(|(end, start)| end.saturating_sub(start));
    said.result(id, ok, &output, took, events);
}

fn told(error: &Value) -> Told {
    let message =
        text(error, "/data/message").or_else(|| text(error, "/name")).unwrap_or("unknown");
    let body = text(error, "/data/responseBody").unwrap_or_default();
    let quota =
        ["insufficient_quota", "usage_limit_reached"].into_iter().find(|w| body.contains(w));
    let retry_after = error
        .pointer("/data/responseHeaders/retry-after")
        .and_then(|value| value.as_str()?.parse().ok())
        .map(Duration::from_secs);
    Told {
        message: message.to_owned(),
        status: status(error, "/data/statusCode"),
        class: quota.or(text(error, "/name")).map(str::to_owned),
        retry_after,
    }
}
