//! What a process prints, as output events: raw bytes, cut at newlines and bounds, text where it is text.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    event::{Event, Phase, Stream},
    limits::MAX_OUTPUT_EVENT_BYTES,
};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use crate::lines::{LineReader, Piece};

/// How long a stream must be silent, after its process has ended, before nobody waits for it any more:
/// a process left in the background may hold it open for ever.
const QUIET: Duration = Duration::from_millis(200);

/// The output of one stream of one process.
#[derive(Debug)]
pub struct Output<R> {
    reader: LineReader<R>,
    phase: Phase,
    stream: Stream,
}

/// Why [`Output::next`] has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Every holder closed the stream.
    Ended,
    /// The process ended and the stream is silent, but something still holds it.
    Held,
}

impl<R: AsyncRead + Unpin> Output<R> {
    pub fn new(source: R, phase: Phase, stream: Stream) -> Self {
        Self { reader: LineReader::new(source, MAX_OUTPUT_EVENT_BYTES), phase, stream }
    }

    /// The next piece as an event. `exited` is cancelled when the process itself has ended.
    pub async fn next(&mut self, exited: &CancellationToken) -> Result<Event, Silence> {
        let piece = tokio::select! {
            // Data first: only a stream that is both left and silent is given up.
            biased;
            piece = self.reader.next() => piece,
            () = async {
                exited.cancelled().await;
                tokio::time::sleep(QUIET).await;
            } => return Err(Silence::Held),
        };
        // A stream that cannot be read has ended, as far as anyone can tell.
        match piece.ok().flatten() {
            Some(piece) => Ok(event(self.phase, self.stream, piece)),
            None => Err(Silence::Ended),
        }
    }
}

fn event(phase: Phase, stream: Stream, piece: Piece) -> Event {
    let (bytes, partial) = match piece {
        Piece::Line(bytes) => (bytes, false),
        Piece::Part(bytes) => (bytes, true),
    };
    let (text, base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Event::Output { phase, stream, text, base64, partial }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn events(bytes: &[u8]) -> Vec<Event> {
        let mut output = Output::new(bytes, Phase::Provider, Stream::Stdout);
        let exited = CancellationToken::new();
        let mut events = Vec::new();
        while let Ok(event) = output.next(&exited).await {
            events.push(event);
        }
        events
    }

    #[tokio::test]
    async fn text_is_text_and_the_rest_base64() {
        let events = events(b"h\xc3\xa9\n\xff\xfe\n").await;
        let fields: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Output { text, base64, partial, .. } => {
                    (text.as_deref(), base64.as_deref(), *partial)
                }
                _ => panic!("{event:?}"),
            })
            .collect();
        assert_eq!(fields, [(Some("hé"), None, false), (None, Some("//4="), false)]);
    }

    #[tokio::test]
    async fn a_line_of_five_megabytes_loses_nothing() {
        let events = events(&vec![b'x'; 5 << 20]).await;
        let mut bytes = 0;
        for (index, event) in events.iter().enumerate() {
            let Event::Output { text: Some(text), partial, .. } = event else { panic!() };
            assert!(text.len() <= MAX_OUTPUT_EVENT_BYTES);
            assert_eq!(*partial, index + 1 < events.len());
            bytes += text.len();
        }
        assert_eq!(bytes, 5 << 20);
    }
}
