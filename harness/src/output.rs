//! What a process prints, as output events: raw bytes, cut at newlines and bounds, text where it is text.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    event::{Event, Phase, Stream},
    limits::MAX_OUTPUT_EVENT_BYTES,
};
use tokio::{io::AsyncRead, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::lines::{LineReader, Piece};

/// How long a stream is still listened to after its process has ended and nothing of it is left in the pipe:
/// a process in the background may hold it open, and talk, for ever.
const LINGER: Duration = Duration::from_millis(200);

/// What is always read of a stream after its process has ended, in bytes: no pipe as the kernel makes it holds more,
/// so all of its own output is in it. Of a pipe that was made larger, all that comes within [`FLOOD`].
const LEFT_BYTES: usize = 192 << 10;

/// How long more than that is taken of somebody who fills the stream without a pause.
const FLOOD: Duration = Duration::from_secs(1);

/// The output of one stream of one process.
#[derive(Debug)]
pub struct Output<R> {
    reader: LineReader<R>,
    phase: Phase,
    stream: Stream,
    /// Counts down once the process has ended.
    left: usize,
    /// When its process was seen to have ended.
    ended: Option<Instant>,
    /// When the stream is given up; known once its process has ended and the pipe was empty.
    until: Option<Instant>,
}

/// Why [`Output::next`] has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Every holder closed the stream.
    Ended,
    /// The process ended and all it printed was taken, but something else still holds the stream.
    Held,
}

impl<R: AsyncRead + Unpin> Output<R> {
    pub fn new(source: R, phase: Phase, stream: Stream) -> Self {
        let reader = LineReader::new(source, MAX_OUTPUT_EVENT_BYTES);
        Self { reader, phase, stream, left: LEFT_BYTES, ended: None, until: None }
    }

    /// The next piece as an event. `exited` is cancelled when the process itself has ended.
    pub async fn next(&mut self, exited: &CancellationToken) -> Result<Event, Silence> {
        if exited.is_cancelled() {
            let ended = *self.ended.get_or_insert_with(Instant::now);
            if self.left == 0 && ended.elapsed() > FLOOD {
                return Err(Silence::Held);
            }
        }
        let piece = tokio::select! {
            // Data first: nothing that its own process printed is given up.
            biased;
            piece = self.reader.next() => piece,
            () = async {
                exited.cancelled().await;
                let until = *self.until.get_or_insert_with(|| Instant::now() + LINGER);
                tokio::time::sleep_until(until).await;
            } => return Err(Silence::Held),
        };
        // A stream that cannot be read has ended, as far as anyone can tell.
        let Some(piece) = piece.ok().flatten() else { return Err(Silence::Ended) };
        if exited.is_cancelled() {
            let (Piece::Line(bytes) | Piece::Part(bytes)) = &piece;
            self.left = self.left.saturating_sub(bytes.len() + 1);
        }
        Ok(event(self.phase, self.stream, piece))
    }

    /// The beginning of a line that nobody ended, of a stream that is given up.
    pub fn rest(mut self) -> Option<Event> {
        // Of one that never stops, what is left is not its process's.
        let rest = self.reader.rest().filter(|_| self.left > 0)?;
        Some(event(self.phase, self.stream, rest))
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

    /// What comes last of a stream that is held.
    async fn last_words(source: impl AsyncRead + Unpin, exited: &CancellationToken) -> String {
        let mut output = Output::new(source, Phase::Provider, Stream::Stdout);
        let mut last = None;
        let silence = loop {
            match output.next(exited).await {
                Ok(event) => last = Some(event),
                Err(silence) => break silence,
            }
        };
        assert_eq!(silence, Silence::Held);
        let Some(Event::Output { text, .. }) = output.rest().or(last) else { panic!() };
        text.unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_others_hold_is_given_up_and_its_last_words_kept() {
        let exited = CancellationToken::new();
        exited.cancel();
        // One that never ends and never waits, and one that says a little now and then.
        let flood = tokio::io::AsyncReadExt::chain(&b"first\n"[..], tokio::io::repeat(b'\n'));
        let (mut talker, source) = tokio::io::duplex(64);
        let talk = async {
            while tokio::io::AsyncWriteExt::write_all(&mut talker, b"x\nlast").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert_eq!(last_words(flood, &exited).await, "");
        let last = tokio::select! {
            last = last_words(source, &exited) => last,
            () = talk => panic!(),
        };
        assert!(last.starts_with("last"));
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
