//! A provider whose every byte is known beforehand: a program that makes its output from the prompt alone, the
//! same output computed here, and what of it arrived.

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    api::events::EventView,
    event::{Event, Phase},
    ids::ExecutionId,
};

/// The provider. Hundreds of short lines, some of tens of kilobytes, some of bytes that are no text; now and then it
/// waits, so that whatever is killed is killed in the middle. Its prompt is a seed, a number of lines, and how many
/// milliseconds to wait after each tenth line.
pub(super) const PROVIDER: &str = r#"exec awk '
function roll() { x = (x * 16807) % 2147483647; return x }
NR == 1 { x = $1; lines = $2; wait = $3 }
END {
    for (i = 1; i <= lines; i++) {
        kind = roll() % 50
        if (kind == 0) {
            unit = sprintf("%d.", roll())
            for (k = roll() % 9000; k >= 0; k--) printf "%s", unit
        } else if (kind == 1) {
            printf "%c", 255
            for (k = roll() % 400; k >= 0; k--) {
                byte = roll() % 256
                printf "%c", byte == 10 ? 0 : byte
            }
        } else printf "line %d of %d: %d", i, lines, roll()
        printf "\n"
        if (i % 10 == 0) { fflush(); system("usleep " wait "000") }
    }
}'"#;

/// What one run's provider is to print.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    pub(super) seed: u32,
    pub(super) lines: u32,
    /// Milliseconds after each tenth line.
    pub(super) wait: u32,
}

impl Script {
    pub(super) fn prompt(&self) -> String {
        format!("{} {} {}", self.seed, self.lines, self.wait)
    }

    /// All it prints, as [`PROVIDER`] does it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut x = u64::from(self.seed);
        let mut roll = || {
            x = x * 16_807 % 2_147_483_647;
            x
        };
        let mut all = Vec::new();
        for i in 1..=self.lines {
            match roll() % 50 {
                0 => {
                    let unit = format!("{}.", roll());
                    for _ in 0..=roll() % 9_000 {
                        all.extend_from_slice(unit.as_bytes());
                    }
                }
                1 => {
                    all.push(255);
                    for _ in 0..=roll() % 400 {
                        let byte = u8::try_from(roll() % 256).unwrap();
                        all.push(if byte == b'\n' { 0 } else { byte });
                    }
                }
                _ => write!(all, "line {i} of {}: {}", self.lines, roll()).unwrap(),
            }
            all.push(b'\n');
        }
        all
    }
}

/// What arrived of the provider's output in one execution.
pub(super) fn printed(events: &[EventView], execution: &ExecutionId) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events.iter().filter(|event| event.execution_id.as_ref() == Some(execution)) {
        if let Some(Event::Output { phase: Phase::Provider, text, base64, partial, .. }) =
            event.event()
        {
            match (text, base64) {
                (Some(text), None) => all.extend_from_slice(text.as_bytes()),
                (None, Some(base64)) => all.extend(BASE64_STANDARD.decode(base64).unwrap()),
                both => panic!("an output event has text or bytes, not {both:?}"),
            }
            if !partial {
                all.push(b'\n');
            }
        }
    }
    all
}

/// Whether `printed` is a beginning of `whole`. Where a provider was killed in a line, the line's beginning was told as
/// a line.
pub(super) fn begins(whole: &[u8], printed: &[u8]) -> bool {
    whole.starts_with(printed)
        || printed.strip_suffix(b"\n").is_some_and(|line| whole.starts_with(line))
}

/// Where two transcripts part, for the test's failure.
pub(super) fn difference(expected: &[u8], found: &[u8]) -> String {
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let text = &bytes[at.saturating_sub(30).min(bytes.len())..(at + 60).min(bytes.len())];
        String::from_utf8_lossy(text).into_owned()
    };
    format!(
        "{} bytes for {}, the same up to {at}: expected …{:?}…, found …{:?}…",
        found.len(),
        expected.len(),
        around(expected),
        around(found)
    )
}
