//! What was printed by a provider once, read again without it: for tests on captured transcripts and for fuzzing.

use protocol::{
    event::{Event, Exit},
    spec::ProviderKind,
};

use crate::{
    dialect::{Dialect, Said},
    failure::Ended,
    lines::{Lines, Piece},
};

/// Reads `stdout` in chunks of `chunk` bytes as `provider` would have printed it, and judges its end.
///
/// # Panics
/// `provider` is not driven by a command line.
pub fn replay(
    provider: ProviderKind,
    stdout: &[u8],
    stderr: &str,
    exit_code: i32,
    chunk: usize,
) -> (Vec<Event>, Exit) {
    let mut dialect = Dialect::of(provider).expect("a provider with a command line");
    let (mut said, mut events) = (Said::default(), Vec::new());
    let mut lines = Lines::new(crate::cli::MAX_LINE_BYTES);
    let mut take = |piece: Piece, events: &mut Vec<Event>| match piece {
        Piece::Line(line) | Piece::Part(line) => events.extend(dialect.read(&line, &mut said)),
    };
    for chunk in stdout.chunks(chunk.max(1)) {
        lines.push(chunk);
        while let Some(piece) = lines.pop() {
            take(piece, &mut events);
        }
    }
    if let Some(rest) = lines.rest() {
        take(rest, &mut events);
    }
    events.extend(dialect.finish());
    let exit = dialect.judge(&Ended { exit_code, said: &said, stderr });
    (events, exit)
}
