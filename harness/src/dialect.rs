//! What the command-line providers print, one JSON object a line, turned into events. Pure: a line goes in, events
//! come out, and what the lines add up to is kept. A line that is not known is kept as it came and breaks nothing.

pub(crate) mod claude;
pub(crate) mod codex;
pub(crate) mod gemini;
pub(crate) mod opencode;
mod value;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    event::{Event, Exit, Phase, Stream},
    limits::MAX_OUTPUT_EVENT_BYTES,
    spec::ProviderKind,
};
use serde_json::Value;

use crate::failure::{self, Ended};

/// Tool calls whose result is still awaited; of more, the oldest names are forgotten and their results nameless.
const MAX_OPEN_CALLS: usize = 256;

/// Longest text of an error that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// Longest answer that is kept, in bytes; the text events have all of it.
const MAX_ANSWER_BYTES: usize = MAX_OUTPUT_EVENT_BYTES;

/// The output language of one provider.
#[derive(Debug)]
pub(crate) enum Dialect {
    Claude(claude::Claude),
    Codex(codex::Codex),
    Opencode(opencode::Opencode),
    Gemini(gemini::Gemini),
}

/// An error a provider told of in its own form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) message: String,
    /// The HTTP status of its model's endpoint.
    pub(crate) status: Option<u16>,
    /// The provider's own word for the class.
    pub(crate) class: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

/// What the lines so far add up to.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Lines in the provider's own form; none is the sign of one that did not understand its arguments.
    pub(crate) lines: u64,
    pub(crate) session_id: Option<String>,
    /// The provider's own final word: whether it succeeded.
    pub(crate) end: Option<bool>,
    pub(crate) error: Option<Told>,
    /// Why it asks its model's endpoint again, as long as that is the last thing it said.
    pub(crate) retry: Option<Told>,
    pub(crate) answer: String,
    pub(crate) turns: u32,
    pub(crate) input_tokens: u64,
    pub(crate) cached_input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_usd: Option<f64>,
    /// It goes round in circles and is to be stopped.
    pub(crate) stuck: Option<&'static str>,
    calls: BTreeMap<String, (String, Instant)>,
}

impl Dialect {
    /// The language of a provider that is driven by its command line; `None` for the others.
    pub(crate) fn of(provider: ProviderKind) -> Option<Self> {
        Some(match provider {
            ProviderKind::Claude => Self::Claude(claude::Claude::default()),
            ProviderKind::Codex => Self::Codex(codex::Codex::default()),
            ProviderKind::Opencode => Self::Opencode(opencode::Opencode::default()),
            ProviderKind::Gemini => Self::Gemini(gemini::Gemini::default()),
            ProviderKind::Agent | ProviderKind::Command => return None,
        })
    }

    /// How the provider ended: well only by its own final word, whatever its exit code.
    pub(crate) fn judge(&self, ended: &Ended<'_>) -> Exit {
        let exit_code = Some(ended.exit_code);
        if ended.said.end == Some(true) && ended.said.stuck.is_none() {
            let message = format!("the provider answered after {} turns", ended.said.turns.max(1));
            return Exit { success: true, exit_code, message, ..Exit::default() };
        }
        let failure = match self {
            Self::Claude(_) => failure::claude(ended),
            Self::Codex(_) => failure::codex(ended),
            Self::Opencode(_) => failure::opencode(ended),
            Self::Gemini(_) => failure::gemini(ended),
        };
        Exit { exit_code, ..failure.exit() }
    }

    /// The events of one line of standard output, without its newline.
    pub(crate) fn read(&mut self, line: &[u8], said: &mut Said) -> Vec<Event> {
        let mut events = Vec::new();
        let Ok(value @ Value::Object(_)) = serde_json::from_slice(line) else {
            return output(line);
        };
        said.lines += 1;
        said.retry = None;
        let known = match self {
            Self::Claude(claude) => claude.read(&value, said, &mut events),
            Self::Codex(codex) => codex.read(&value, said, &mut events),
            Self::Opencode(opencode) => opencode.read(&value, said, &mut events),
            Self::Gemini(gemini) => gemini.read(&value, said, &mut events),
        };
        if !known {
            let line = String::from_utf8_lossy(line);
            let (line, truncated) = cut(&line, MAX_OUTPUT_EVENT_BYTES);
            events.push(Event::Raw { line, truncated });
        }
        events
    }

    /// What was held back, when nothing more comes.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Self::Gemini(gemini) = self {
            gemini.flush(&mut events);
        }
        events
    }
}

impl Said {
    fn session(&mut self, provider: &str, id: Option<&str>, events: &mut Vec<Event>) {
        let Some(id) = id.filter(|id| !id.is_empty() && id.len() <= 256) else { return };
        if self.session_id.as_deref() != Some(id) {
            self.session_id = Some(id.to_owned());
            let (provider, session_id) = (provider.to_owned(), id.to_owned());
            events.push(Event::Session { provider, session_id });
        }
    }

    /// The text that counts as the answer, should the provider stop here.
    fn answer(&mut self, text: &str) {
        self.answer = cut(text, MAX_ANSWER_BYTES).0;
    }

    fn call(&mut self, id: &str, name: &str, input: &Value, events: &mut Vec<Event>) {
        if self.calls.len() >= MAX_OPEN_CALLS {
            self.calls.pop_first();
        }
        let id = cut(id, 256).0;
        let name = cut(name, 256).0;
        self.calls.insert(id.clone(), (name.clone(), Instant::now()));
        let input = crate::agent::shown(input);
        events.push(Event::ToolCall { id, name, input, scripted: false });
    }

    /// `took` where the provider says it, else the time since the call.
    fn result(
        &mut self,
        id: &str,
        ok: bool,
        output: &str,
        took: Option<u64>,
        events: &mut Vec<Event>,
    ) {
        let id = cut(id, 256).0;
        let (name, since) = self.calls.remove(&id).unzip();
        let since = since.map(|since| since.elapsed().as_millis());
        let (output, truncated) = cut(output, MAX_OUTPUT_EVENT_BYTES);
        events.push(Event::ToolResult {
            id,
            name: name.unwrap_or_default(),
            ok,
            output,
            duration_ms: took
                .or_else(|| since.and_then(|ms| u64::try_from(ms).ok()))
                .unwrap_or_default(),
            truncated,
            scripted: false,
        });
    }

    fn usage(&self, events: &mut Vec<Event>) {
        events.push(Event::Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_input_tokens: self.cached_input_tokens,
            turns: self.turns,
            cost_usd: self.cost_usd,
            scripted: false,
        });
    }

    fn fail(&mut self, told: Told) {
        let message = cut(&told.message, MAX_ERROR_BYTES).0;
        self.error = Some(Told { message, ..told });
    }

    fn ended(&mut self, success: bool, events: &mut Vec<Event>) {
        self.end = Some(success);
        if success && !self.answer.is_empty() {
            events.push(Event::Answer { text: self.answer.clone(), scripted: false });
        }
    }
}

/// What the model said, as events.
fn say(text: &str, events: &mut Vec<Event>) {
    events.extend(pieces(text).into_iter().map(|text| Event::Text { text, scripted: false }));
}

/// A line that is no JSON object is output like any other program's.
fn output(line: &[u8]) -> Vec<Event> {
    line.chunks(MAX_OUTPUT_EVENT_BYTES)
        .enumerate()
        .map(|(index, piece)| {
            let (text, base64) = match std::str::from_utf8(piece) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(BASE64_STANDARD.encode(piece))),
            };
            let partial = (index + 1) * MAX_OUTPUT_EVENT_BYTES < line.len();
            Event::Output { phase: Phase::Provider, stream: Stream::Stdout, text, base64, partial }
        })
        .collect()
}

/// A long text in pieces that an event holds, cut between characters.
fn pieces(text: &str) -> Vec<String> {
    let mut rest = text.trim_end_matches('\n');
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_OUTPUT_EVENT_BYTES));
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces
}

/// A name as a provider says it, within bounds.
fn named(name: Option<&str>) -> String {
    cut(name.unwrap_or("unnamed"), 256).0
}

/// At most `max` bytes of `text`; whether something is missing.
fn cut(text: &str, max: usize) -> (String, bool) {
    let end = text.floor_char_boundary(max);
    (text[..end].to_owned(), end < text.len())
}
