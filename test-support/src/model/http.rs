//! Answers as bytes on the wire, the broken ones included.

use serde_json::Value;

pub(super) struct Answer {
    pub(super) parts: Vec<String>,
    pub(super) ending: Ending,
}

pub(super) enum Ending {
    Close,
    Reset,
    Stall,
}

impl Answer {
    /// A stream of server-sent events; the text of each is given whole.
    pub(super) fn stream(events: impl IntoIterator<Item = String>) -> Self {
        let mut parts = vec![head(200, "text/event-stream", "")];
        parts.extend(events);
        Self { parts, ending: Ending::Close }
    }

    pub(super) fn json(status: u16, headers: &str, body: &Value) -> Self {
        let parts = vec![head(status, "application/json", headers), body.to_string()];
        Self { parts, ending: Ending::Close }
    }

    pub(super) fn head(status: u16) -> Self {
        Self { parts: vec![head(status, "text/plain", "")], ending: Ending::Close }
    }

    /// Cut in the middle of an event's JSON.
    pub(super) fn malformed() -> Self {
        let cut = "data: {\"choices\": [\n\n".to_owned();
        Self { parts: vec![head(200, "text/event-stream", ""), cut], ending: Ending::Close }
    }

    /// Its head and its first events, never the last, and then another ending.
    pub(super) fn beginning(mut self, ending: Ending) -> Self {
        self.parts.truncate(3.min(self.parts.len().saturating_sub(1)));
        self.ending = ending;
        self
    }
}

/// The end of the body is the end of the connection.
fn head(status: u16, content_type: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status} Test\r\ncontent-type: {content_type}\r\n{headers}connection: close\r\n\r\n"
    )
}

/// One server-sent event without a name.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// One server-sent event by the name that its data has as `type`.
pub(super) fn named(value: &Value) -> String {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n")
}
