//! What the status line says of a run. Pure: the time is an argument.

use std::time::{Duration, Instant};

use protocol::{
    event::{Event, Phase},
    run::RunState,
};

use crate::text::{duration, printable, shorten, size};

/// A run as far as its events have told.
#[derive(Debug)]
pub(crate) struct View {
    since: Instant,
    state: RunState,
    phase: Option<(Phase, Instant)>,
    detail: String,
    usage: String,
}

impl View {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            state: RunState::Queued,
            phase: None,
            detail: String::new(),
            usage: String::new(),
        }
    }

    pub(crate) fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::State { state, .. } => {
                self.state = *state;
                if *state == RunState::Queued {
                    (self.phase, self.detail) = (None, String::new());
                }
            }
            Event::PhaseStarted { phase } => {
                (self.phase, self.detail) = (Some((*phase, now)), String::new());
            }
            Event::PhaseFinished { .. } => (self.phase, self.detail) = (None, String::new()),
            Event::ImageProgress { image, status, current_bytes, total_bytes } => {
                self.detail = match (current_bytes, total_bytes) {
                    (Some(current), Some(total)) => {
                        format!("{image} {status} {} of {}", size(*current), size(*total))
                    }
                    _ => format!("{image} {status}"),
                };
            }
            Event::SetupStarted { command, .. } => self.detail.clone_from(command),
            Event::Usage { input_tokens, output_tokens, turns, .. } => {
                self.usage = format!("turn {turns}, {} tokens", input_tokens + output_tokens);
            }
            _ => {}
        }
    }

    /// `INPROGRESS · setup 4.2 s · make test · 12.0 s`
    pub(crate) fn status(&self, now: Instant) -> String {
        let mut parts = vec![self.state.to_string()];
        if let Some((phase, since)) = self.phase {
            parts.push(format!("{} {}", phase.as_str(), seconds(now - since)));
        }
        for more in [&self.detail, &self.usage] {
            if !more.is_empty() {
                let line = more.lines().next().unwrap_or_default();
                parts.push(shorten(&printable(line), 60));
            }
        }
        parts.push(seconds(now - self.since));
        parts.join(" · ")
    }
}

/// Whole seconds, so that the line moves once a second.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..100 => format!("{secs} s"),
        secs => duration(secs * 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_where_the_run_is() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut view = View::new(start);
        assert_eq!(view.status(at(1)), "QUEUED · 1 s");
        view.take(&Event::PhaseStarted { phase: Phase::Image }, at(2));
        view.take(
            &Event::ImageProgress {
                image: "debian".into(),
                status: "pulling".into(),
                current_bytes: Some(1_500_000),
                total_bytes: Some(30_000_000),
            },
            at(3),
        );
        assert_eq!(
            view.status(at(5)),
            "QUEUED · image 3 s · debian pulling 1.5 MB of 30.0 MB · 5 s"
        );
        view.take(&Event::PhaseFinished { phase: Phase::Image, duration_ms: 1, ok: true }, at(6));
        assert_eq!(view.status(at(130)), "QUEUED · 2m10s");
    }
}
