//! The secrets a provider was started with, kept out of what it prints: a model that lists its environment prints
//! them in passing.

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    event::Event,
    secret::Secret,
    sidecar::Launch,
    spec::{HttpEndpoint, McpServer},
};
use serde_json::Value;

/// Shorter values are not looked for: they stand in too many other words.
const MIN_BYTES: usize = 8;

/// What stands in place of one.
const HIDDEN: &[u8] = b"[secret]";

#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// What this provider is trusted with, and nobody may read in what it prints.
    pub(crate) fn of(launch: &Launch, endpoint: Option<&HttpEndpoint>) -> Self {
        let servers = launch.harness.mcp_servers.values().flat_map(|server| match server {
            McpServer::Stdio { env, .. } => env.values(),
            McpServer::Http { headers, .. } => headers.values(),
        });
        let endpoint =
            endpoint.into_iter().flat_map(|http| http.api_key.iter().chain(http.headers.values()));
        Self::new(endpoint.chain(servers))
    }

    fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut all = Vec::new();
        for text in secrets.map(Secret::expose).filter(|text| text.len() >= MIN_BYTES) {
            all.push(text.as_bytes().to_vec());
            let json = Value::from(text).to_string();
            let inner = &json[1..json.len() - 1];
            if inner != text {
                all.push(inner.as_bytes().to_vec());
            }
        }
        // The longest first: one may stand inside another.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    pub(crate) fn hide(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for secret in &self.0 {
            if let Some(first) = find(&bytes, secret) {
                bytes = without(&bytes, secret, first);
            }
        }
        bytes
    }

    fn hide_text(&self, text: String) -> String {
        // What is cut out and what is put in are whole characters.
        String::from_utf8(self.hide(text.into_bytes())).unwrap_or_default()
    }

    /// The same for everything in an event that a process, a model or a tool had the word in.
    pub(crate) fn hide_in(&self, event: Event) -> Event {
        if self.0.is_empty() {
            return event;
        }
        let hide = |text| self.hide_text(text);
        match event {
            Event::Output { phase, stream, text, base64, partial } => {
                let base64 = base64.map(|coded| {
                    let bytes = BASE64_STANDARD.decode(&coded).unwrap_or_default();
                    BASE64_STANDARD.encode(self.hide(bytes))
                });
                Event::Output { phase, stream, text: text.map(hide), base64, partial }
            }
            Event::Text { text, scripted } => Event::Text { text: hide(text), scripted },
            Event::Answer { text, scripted } => Event::Answer { text: hide(text), scripted },
            Event::Notice { text } => Event::Notice { text: hide(text) },
            Event::ModelRetry { attempt, wait_ms, message } => {
                Event::ModelRetry { attempt, wait_ms, message: hide(message) }
            }
            Event::ToolCall { id, name, input, scripted } => {
                Event::ToolCall { id, name, input: self.hide_in_value(input), scripted }
            }
            Event::ToolResult { id, name, ok, output, duration_ms, truncated, scripted } => {
                let output = hide(output);
                Event::ToolResult { id, name, ok, output, duration_ms, truncated, scripted }
            }
            other => other,
        }
    }

    fn hide_in_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.hide_text(text)),
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.hide_in_value(item)).collect())
            }
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (self.hide_text(name), self.hide_in_value(value)))
                    .collect(),
            ),
            other => other,
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, last) = (wanted[0], bytes.len().checked_sub(wanted.len())?);
    let mut from = 0;
    while from <= last {
        from += bytes[from..=last].iter().position(|byte| *byte == first)?;
        if bytes[from..].starts_with(wanted) {
            return Some(from);
        }
        from += 1;
    }
    None
}

fn without(bytes: &[u8], secret: &[u8], first: usize) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let (mut rest, mut next) = (bytes, Some(first));
    while let Some(at) = next {
        kept.extend_from_slice(&rest[..at]);
        kept.extend_from_slice(HIDDEN);
        rest = &rest[at + secret.len()..];
        next = find(rest, secret);
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_hidden_wherever_it_stands() {
        let secrets = ["sk-12345", "short", "sk-123456789", "with \"quote\""].map(Secret::new);
        let secrets = Secrets::new(secrets.iter());
        let hide = |text: &str| String::from_utf8(secrets.hide(text.into())).unwrap();
        assert_eq!(hide("ask-12345sk-12345,short"), "a[secret][secret],short");
        assert_eq!(hide("sk-123456789"), "[secret]");
        assert_eq!(hide(r#"{"a":"with \"quote\"."}"#), r#"{"a":"[secret]."}"#);
        assert_eq!(hide("sk-1234"), "sk-1234");
        assert_eq!(hide(""), "");
    }

    #[test]
    fn every_event_that_may_hold_one_is_looked_through() {
        let secrets = Secrets::new([Secret::new("sk-12345")].iter());
        let said = || "it is sk-12345".to_owned();
        for event in [
            Event::Text { text: said(), scripted: false },
            Event::Answer { text: said(), scripted: false },
            Event::Notice { text: said() },
            Event::ModelRetry { attempt: 1, wait_ms: None, message: said() },
            Event::ToolCall {
                id: "a".to_owned(),
                name: "shell".to_owned(),
                input: serde_json::json!({"sk-12345": ["sk-12345", 1]}),
                scripted: false,
            },
            Event::ToolResult {
                id: "a".to_owned(),
                name: "shell".to_owned(),
                ok: true,
                output: said(),
                duration_ms: 1,
                truncated: false,
                scripted: false,
            },
        ] {
            let shown = format!("{:?}", secrets.hide_in(event));
            assert!(shown.contains("[secret]") && !shown.contains("12345"), "{shown}");
        }
    }
}
