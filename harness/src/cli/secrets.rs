//! The secrets a provider was started with, kept out of what it prints: a model that lists its environment prints
//! them in passing.

use protocol::{event::Event, secret::Secret};

use base64::{Engine, prelude::BASE64_STANDARD};

/// Shorter values are not looked for: they stand in too many other words.
const MIN_BYTES: usize = 8;

/// What stands in place of one.
const HIDDEN: &[u8] = b"[secret]";

#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut all = Vec::new();
        for text in secrets.map(Secret::expose).filter(|text| text.len() >= MIN_BYTES) {
            all.push(text.as_bytes().to_vec());
            let json = serde_json::Value::from(text).to_string();
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

    pub(super) fn hide(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for secret in &self.0 {
            if let Some(first) = find(&bytes, secret) {
                bytes = without(&bytes, secret, first);
            }
        }
        bytes
    }

    /// The same for an event of a process's output.
    pub(super) fn hide_in(&self, event: Event) -> Event {
        if self.0.is_empty() {
            return event;
        }
        match event {
            Event::Output { phase, stream, text, base64, partial } => {
                let hidden = |bytes: Vec<u8>| self.hide(bytes);
                let text = text.map(|text| {
                    // What is cut out and what is put in are whole characters.
                    String::from_utf8(hidden(text.into_bytes())).unwrap_or_default()
                });
                let base64 = base64.map(|coded| {
                    let bytes = BASE64_STANDARD.decode(&coded).unwrap_or_default();
                    BASE64_STANDARD.encode(hidden(bytes))
                });
                Event::Output { phase, stream, text, base64, partial }
            }
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
}
