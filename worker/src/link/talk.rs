//! What one connection says and when, from `hello` to its end, without a socket and without a clock: frames
//! and the time come in, frames go out. Whoever drives it owns the bytes.

use std::{ops::RangeInclusive, time::Duration};

use protocol::{
    ids::ExecutionId,
    link::{FromWorker, Hello, PROTOCOL_VERSION, ToWorker, Welcome},
};
use tokio::time::Instant;

use super::identity::Identity;
use crate::executions::{Answer, Desk};

/// From the connection to `welcome`.
pub(crate) const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// What a plane may ask for, in milliseconds; anything else is brought into this range.
const HEARTBEAT_MS: RangeInclusive<u64> = 50..=60_000;

/// Why a connection is to be given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error("the plane did not answer the hello within {} s", WELCOME_WITHIN.as_secs())]
    NoWelcome,
    #[error("the plane speaks version {0} of the link, this worker {PROTOCOL_VERSION}")]
    Version(u32),
    #[error("nothing heard of the plane for {} ms", .0.as_millis())]
    Silent(Duration),
}

pub(crate) struct Talk {
    /// Since when it lasts.
    begun: Instant,
    /// When the plane last gave a sign of life.
    heard: Instant,
    terms: Option<Terms>,
    /// Whose turn it was last: executions speak one after another, so that none drowns the others.
    last: Option<ExecutionId>,
}

/// What the plane asked for with its welcome.
struct Terms {
    heartbeat: Duration,
    next_beat: Instant,
    /// Nothing heard for this long: the link is dead, whatever TCP says. Shorter than a lease.
    silence: Duration,
}

impl Talk {
    /// A new connection, and its first frame.
    pub(crate) fn begin(identity: &Identity, desk: &Desk, now: Instant) -> (Self, FromWorker) {
        let hello = FromWorker::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            instance_id: identity.instance_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tags: identity.tags.clone(),
            backend: identity.backend.to_owned(),
            capacity: identity.capacity,
            draining: desk.is_draining(),
            disk: desk.disk(),
            executions: desk.running(),
        });
        (Self { begun: now, heard: now, terms: None, last: None }, hello)
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.terms.is_some()
    }

    /// A sign of life that is no frame.
    pub(crate) fn sign(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Acts on a frame, but for beginning what it assigns: that is handed back.
    ///
    /// # Errors
    /// The two do not understand each other.
    pub(crate) fn hear(
        &mut self,
        message: ToWorker,
        desk: &Desk,
        now: Instant,
    ) -> Result<Answer, TalkError> {
        self.heard = now;
        match message {
            ToWorker::Welcome(_) if self.is_welcomed() => {
                tracing::warn!("a second welcome is passed over");
            }
            ToWorker::Welcome(welcome) => self.welcome(&welcome, desk, now)?,
            other if !self.is_welcomed() => {
                // It is of another conversation; what it meant is made up for after the welcome.
                tracing::warn!(kind = other.kind(), "a frame before the welcome is passed over");
            }
            ToWorker::TaskAssignment(assignment) => return Ok(desk.assign(*assignment)),
            ToWorker::TaskCancellation(cancellation) => desk.cancel(&cancellation),
            ToWorker::Ack(ack) => desk.ack(&ack, now),
            ToWorker::ReportAck(done) => desk.report_acked(&done.execution_id),
            ToWorker::Stop(stop) => desk.superseded(&stop.execution_id),
            ToWorker::Drain(_) => desk.drain_for_plane(),
            ToWorker::Resume(_) => desk.resume_for_plane(),
            ToWorker::Unknown(kind) => {
                tracing::info!(kind, "a frame this version does not know is passed over");
            }
        }
        Ok(Answer::Nothing)
    }

    fn welcome(&mut self, welcome: &Welcome, desk: &Desk, now: Instant) -> Result<(), TalkError> {
        if welcome.protocol != PROTOCOL_VERSION {
            return Err(TalkError::Version(welcome.protocol));
        }
        desk.verdicts(&welcome.executions, now);
        let heartbeat = welcome.heartbeat_ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        let silence = welcome.lease_ms.saturating_sub(heartbeat).max(2 * heartbeat);
        self.terms = Some(Terms {
            heartbeat: Duration::from_millis(heartbeat),
            next_beat: now,
            silence: Duration::from_millis(silence),
        });
        Ok(())
    }

    /// The next frame to send, if there is one. A heartbeat that is due goes before everything else: while one
    /// execution floods the link, the leases of the others go on.
    pub(crate) fn next(&mut self, desk: &Desk, now: Instant) -> Option<FromWorker> {
        let terms = self.terms.as_mut()?;
        if terms.next_beat <= now {
            terms.next_beat = now + terms.heartbeat;
            return Some(FromWorker::Heartbeat(desk.heartbeat()));
        }
        if let Some(rejection) = desk.next_rejection() {
            return Some(rejection);
        }
        let all = desk.all();
        let turn = all.partition_point(|held| Some(&held.execution_id) <= self.last.as_ref());
        let (before, after) = all.split_at(turn);
        let (held, message) = after
            .iter()
            .chain(before)
            .find_map(|held| Some((held, held.outbox.next(now)?)))?;
        self.last = Some(held.execution_id.clone());
        Some(message)
    }

    /// When the next heartbeat is due.
    pub(crate) fn next_beat(&self) -> Instant {
        self.terms.as_ref().map_or_else(|| self.silent_at(), |terms| terms.next_beat)
    }

    /// When it is to be given up, should nothing be heard until then.
    pub(crate) fn silent_at(&self) -> Instant {
        match &self.terms {
            None => self.begun + WELCOME_WITHIN,
            Some(terms) => self.heard + terms.silence,
        }
    }

    /// Why the connection is to be given up by now, if it is.
    pub(crate) fn overdue(&self, now: Instant) -> Option<TalkError> {
        if now < self.silent_at() {
            return None;
        }
        Some(match &self.terms {
            None => TalkError::NoWelcome,
            Some(terms) => TalkError::Silent(terms.silence),
        })
    }
}
