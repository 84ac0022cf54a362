//! The end of what a process wrote, as text, without what only colours a terminal.

use protocol::event::Event;

/// What is kept, in bytes.
const MAX_BYTES: usize = 32 << 10;

#[derive(Debug, Default)]
pub(super) struct Tail(String);

impl Tail {
    pub(super) fn keep(&mut self, event: &Event) {
        let Event::Output { text: Some(text), partial, .. } = event else { return };
        self.0.push_str(text);
        if !partial {
            self.0.push('\n');
        }
        if self.0.len() > 2 * MAX_BYTES {
            let from = self.0.ceil_char_boundary(self.0.len() - MAX_BYTES);
            self.0.drain(..from);
        }
    }

    pub(super) fn text(self) -> String {
        plain(&self.0)
    }
}

/// Without escape sequences (`ESC [ … letter`).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use protocol::event::{Phase, Stream};

    use super::*;

    #[test]
    fn the_end_is_kept_without_colours() {
        let mut tail = Tail::default();
        let say = |text: &str| Event::Output {
            phase: Phase::Provider,
            stream: Stream::Stderr,
            text: Some(text.to_owned()),
            base64: None,
            partial: false,
        };
        tail.keep(&say(&"é".repeat(MAX_BYTES)));
        tail.keep(&say(&"é".repeat(MAX_BYTES)));
        tail.keep(&say("\u{1b}[91m\u{1b}[1mError: \u{1b}[0mSession not found"));
        let text = tail.text();
        assert!(text.ends_with("é\nError: Session not found\n"), "{}", &text[text.len() - 60..]);
        assert!(text.len() <= 2 * MAX_BYTES);
    }
}
