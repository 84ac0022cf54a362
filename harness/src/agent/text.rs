//! Text of a model on its way into events: in whole lines where it can be, and within bounds.

use protocol::{event::Event, limits::MAX_OUTPUT_EVENT_BYTES};
use serde_json::Value;

use crate::feed::Feed;

/// Longest text in one event; a longer answer is cut, longer running text goes on in the next event.
pub(super) const MAX_TEXT_EVENT_BYTES: usize = MAX_OUTPUT_EVENT_BYTES;

/// Longest text inside a tool call's input as it is shown; the tool itself gets all of it.
const MAX_SHOWN_INPUT_BYTES: usize = 16 << 10;

/// Whole lines are shown as soon as there is this much of them.
const SHOW_AT_BYTES: usize = 512;

/// Collects a model's running text into events.
pub(super) struct Running<'a> {
    feed: &'a Feed,
    buffer: String,
}

impl<'a> Running<'a> {
    pub(super) fn new(feed: &'a Feed) -> Self {
        Self { feed, buffer: String::new() }
    }

    pub(super) async fn push(&mut self, text: &str) {
        self.buffer.push_str(text);
        if self.buffer.len() >= SHOW_AT_BYTES
            && let Some(end) = self.buffer.rfind('\n')
        {
            let rest = self.buffer.split_off(end + 1);
            self.show().await;
            self.buffer = rest;
        }
        if self.buffer.len() > MAX_TEXT_EVENT_BYTES {
            self.show().await;
        }
    }

    /// Sends what there is.
    pub(super) async fn show(&mut self) {
        let mut rest = std::mem::take(&mut self.buffer);
        while !rest.is_empty() {
            let end = rest.floor_char_boundary(MAX_TEXT_EVENT_BYTES);
            let next = rest.split_off(end);
            let text = rest.trim_end_matches('\n').to_owned();
            if !text.is_empty() {
                self.feed.send(Event::Text { text, scripted: false }).await;
            }
            rest = next;
        }
    }
}

/// At most `max` bytes of `text` and a word on what is missing; whether something is.
pub(super) fn cut(mut text: String, max: usize) -> (String, bool) {
    if text.len() <= max {
        return (text, false);
    }
    let missing = text.len() - max;
    text.truncate(text.floor_char_boundary(max.saturating_sub(64)));
    text.push_str("\n[");
    text.push_str(&missing.to_string());
    text.push_str(" or more bytes left out]");
    (text, true)
}

/// The input of a tool call as it is shown: its long texts cut, and as one text if it is still too long.
pub(crate) fn shown(input: &Value) -> Value {
    let short = shorten(input);
    let text = short.to_string();
    if text.len() <= MAX_TEXT_EVENT_BYTES {
        return short;
    }
    Value::String(cut(text, MAX_TEXT_EVENT_BYTES).0)
}

fn shorten(input: &Value) -> Value {
    match input {
        Value::String(text) => Value::String(cut(text.clone(), MAX_SHOWN_INPUT_BYTES).0),
        Value::Array(items) => Value::Array(items.iter().take(64).map(shorten).collect()),
        Value::Object(fields) => Value::Object(
            fields.iter().take(64).map(|(name, value)| (name.clone(), shorten(value))).collect(),
        ),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_shown_within_bounds_whatever_its_form() {
        let long = "x".repeat(100_000);
        for input in [
            serde_json::json!({"command": long}),
            serde_json::json!([long, long, long, long, long, long, long, long]),
            serde_json::json!({ long: 1 }),
        ] {
            assert!(shown(&input).to_string().len() <= MAX_TEXT_EVENT_BYTES + 2);
        }
        let short = serde_json::json!({"a": [1, "b"]});
        assert_eq!(shown(&short), short);
    }
}
