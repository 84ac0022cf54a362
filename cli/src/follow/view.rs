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
    /// While it is queued.
    queued_since: Option<Instant>,
    /// What it waits for, and when that was asked.
    waits_for: String,
    asked: Option<Instant>,
}

/// A wait shorter than this needs no reason.
const ASK_AFTER: Duration = Duration::from_secs(3);

/// How often the reason is asked for.
const ASK_EVERY: Duration = Duration::from_secs(5);

impl View {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            state: RunState::Queued,
            phase: None,
            detail: String::new(),
            usage: String::new(),
            queued_since: Some(now),
            waits_for: String::new(),
            asked: None,
        }
    }

    /// Whether it is time to ask what the run waits for; true once, then not for a while.
    pub(crate) fn asks_why(&mut self, now: Instant) -> bool {
        let waits = self.queued_since.is_some_and(|since| now - since >= ASK_AFTER);
        let due = waits && self.asked.is_none_or(|asked| now - asked >= ASK_EVERY);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// What the run waits for.
    pub(crate) fn waits_for(&mut self, message: &str) {
        if self.queued_since.is_some() {
            message.clone_into(&mut self.waits_for);
        }
    }

    pub(crate) fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::State { state, .. } => {
                self.state = *state;
                self.waits_for.clear();
                self.queued_since = None;
                if *state == RunState::Queued {
                    (self.phase, self.detail) = (None, String::new());
                    self.queued_since = Some(now);
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
        for (more, most) in [(&self.waits_for, 100), (&self.detail, 60), (&self.usage, 60)] {
            if !more.is_empty() {
                let line = more.lines().next().unwrap_or_default();
                parts.push(shorten(&printable(line), most));
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
    fn a_run_that_waits_for_long_says_for_what() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut view = View::new(start);
        assert!(!view.asks_why(at(1)));
        assert!(view.asks_why(at(3)));
        assert!(!view.asks_why(at(4)));
        view.waits_for("no worker is connected");
        assert_eq!(view.status(at(4)), "QUEUED · no worker is connected · 4 s");
        assert!(view.asks_why(at(9)));
        let state = |state| Event::State {
            state,
            attempt: 1,
            reason: None,
            message: None,
            worker_id: None,
            cancelling: false,
        };
        view.take(&state(RunState::Pending), at(10));
        // The answer came too late.
        view.waits_for("no worker is connected");
        assert_eq!(view.status(at(10)), "PENDING · 10 s");
        assert!(!view.asks_why(at(20)));
        view.take(&state(RunState::Queued), at(20));
        assert!(view.asks_why(at(23)));
    }

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
