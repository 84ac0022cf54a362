//! Server-sent events, parsed from bytes in whatever pieces they come. Pure.

/// Longest event, in bytes. A longer one is an error: no event of ours is near it.
pub(crate) const MAX_EVENT_BYTES: usize = 16 << 20;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub id: Option<u64>,
    /// `message` where the stream did not say.
    pub event: String,
    pub data: String,
}

/// The stream sent an event longer than [`MAX_EVENT_BYTES`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT_BYTES} bytes")]
pub(crate) struct TooLong;

/// What is known of a stream so far.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    id: Option<u64>,
    event: String,
    data: Vec<u8>,
}

impl Parser {
    /// The messages that `bytes` completes.
    ///
    /// # Errors
    /// An event is too long; the parser is of no use after it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    messages.extend(self.end_line(&line));
                }
                byte => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
        }
        Ok(messages)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Message> {
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|&b| b == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"id" => self.id = std::str::from_utf8(value).ok().and_then(|id| id.parse().ok()),
            // Comments (keep-alives) and fields we do not know.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Message> {
        let data = std::mem::take(&mut self.data);
        let event = std::mem::take(&mut self.event);
        if data.is_empty() {
            return None;
        }
        Some(Message {
            id: self.id,
            event: if event.is_empty() { "message".to_owned() } else { event },
            data: String::from_utf8_lossy(&data[..data.len() - 1]).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: 1\nevent: state\ndata: {\"a\":\"\u{fc}\"}\n\nid:2\r\ndata:x\r\ndata: y\r\n\r\n:\n\nevent: none\n\n";

    fn expected() -> Vec<Message> {
        vec![
            Message { id: Some(1), event: "state".into(), data: "{\"a\":\"\u{fc}\"}".into() },
            Message { id: Some(2), event: "message".into(), data: "x\ny".into() },
        ]
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        assert_eq!(Parser::default().push(STREAM.as_bytes()).unwrap(), expected());
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                messages.extend(parser.push(piece).unwrap());
            }
            assert_eq!(messages, expected(), "cut every {size} bytes");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let line = vec![b'x'; MAX_EVENT_BYTES];
        assert!(parser.push(&line).is_ok());
        assert_eq!(parser.push(b"xx"), Err(TooLong));
    }
}
