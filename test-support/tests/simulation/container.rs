//! A container with its sidecar and provider: what it says and when is settled when it begins. It outlives the
//! worker's process and dies with the machine. It keeps what nobody acknowledged, and no more.

use protocol::{
    event::{Event, EventLine, Exit, Phase, Stream},
    failure::FailureReason,
    ids::{ExecutionId, RunId},
};

use super::{chance::Chance, world::Ms};

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) run: RunId,
    pub(crate) machine: usize,
    lines: Vec<(Ms, EventLine)>,
    /// When its last process ends, should nobody end it before.
    ends: Ms,
    ended: Option<Ms>,
    cancelled: bool,
    /// The sidecar's journal begins after this one.
    forgotten: u64,
    pub(crate) removed: bool,
}

/// How a provider fares.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeeds,
    Fails,
    /// Ours to blame, so the run is tried again.
    Stumbles,
    /// Ends without a word.
    Dies,
}

impl Container {
    pub(crate) fn begin(
        id: &ExecutionId,
        run: &RunId,
        machine: usize,
        now: Ms,
        chance: &mut Chance,
    ) -> Self {
        let fate = match chance.below(10) {
            0..=6 => Fate::Succeeds,
            7 => Fate::Fails,
            8 => Fate::Stumbles,
            _ => Fate::Dies,
        };
        let mut container = Self {
            run: run.clone(),
            machine,
            lines: Vec::new(),
            ends: now,
            ended: None,
            cancelled: false,
            forgotten: 0,
            removed: false,
        };
        // Long enough that some outlive a lease.
        let pause = chance.within(1..=1_200);
        for n in 1..=chance.within(0..=40) {
            container.ends += chance.within(0..=pause);
            container.line(&output(id, n));
        }
        container.ends += chance.within(1..=500);
        match fate {
            Fate::Succeeds => container.line(&exit(id, None)),
            Fate::Fails => container.line(&exit(id, Some(FailureReason::AgentExit))),
            Fate::Stumbles => container.line(&exit(id, Some(FailureReason::SidecarLost))),
            Fate::Dies => {}
        }
        container
    }

    fn line(&mut self, event: &Event) {
        let seq = self.lines.len() as u64 + 1;
        self.lines.push((self.ends, EventLine::new(seq, 0, event)));
    }

    /// How many events it has said by now.
    pub(crate) fn said(&self, now: Ms) -> u64 {
        let until = self.ended.map_or(now, |ended| ended.min(now));
        self.lines.iter().take_while(|(at, _)| *at <= until).count() as u64
    }

    pub(crate) fn runs(&self, now: Ms) -> bool {
        self.ended.is_none() && now < self.ends
    }

    /// The event after number `seq`.
    ///
    /// # Errors
    /// The journal has forgotten it: it was acknowledged to the sidecar, and nobody has it.
    pub(crate) fn after(&self, seq: u64, now: Ms) -> Result<Option<EventLine>, u64> {
        if seq < self.forgotten {
            return Err(self.forgotten);
        }
        if seq >= self.said(now) {
            return Ok(None);
        }
        let index = usize::try_from(seq).unwrap_or(usize::MAX);
        Ok(self.lines.get(index).map(|(_, line)| line.clone()))
    }

    pub(crate) fn forget(&mut self, acked: u64) {
        self.forgotten = self.forgotten.max(acked);
    }

    /// When it next says something, or ends.
    pub(crate) fn next_at(&self, now: Ms) -> Option<Ms> {
        if !self.runs(now) {
            return None;
        }
        let next = self.lines.iter().map(|(at, _)| *at).find(|at| *at > now);
        Some(next.unwrap_or(self.ends).min(self.ends))
    }

    /// The sidecar is told to stop: it interrupts the provider and says so.
    pub(crate) fn cancel(&mut self, id: &ExecutionId, now: Ms, grace: Ms) {
        if self.cancelled || !self.runs(now) {
            return;
        }
        self.cancelled = true;
        let by = now + grace;
        if by < self.ends {
            self.lines.retain(|(at, _)| *at <= by);
            self.ends = by;
            self.line(&exit(id, Some(FailureReason::TaskCancelled)));
        }
    }

    pub(crate) fn kill(&mut self, now: Ms) {
        if self.runs(now) {
            self.ended = Some(now);
        }
    }

    /// All that it said, each as kind and data.
    pub(crate) fn transcript(&self, now: Ms) -> Vec<(String, String)> {
        let said = usize::try_from(self.said(now)).unwrap_or(usize::MAX);
        let text = |(_, line): &(Ms, EventLine)| (line.kind.clone(), line.data.get().to_owned());
        self.lines.iter().take(said).map(text).collect()
    }

    /// Whether its provider ended with a word of success.
    pub(crate) fn succeeded(&self, now: Ms) -> bool {
        let said = usize::try_from(self.said(now)).unwrap_or(usize::MAX);
        let last = self.lines.iter().take(said).next_back();
        last.is_some_and(|(_, line)| exit_of(line).is_some_and(|exit| exit.success))
    }
}

pub(crate) fn exit_of(line: &EventLine) -> Option<Exit> {
    match line.event() {
        Some(Event::Exit(exit)) => Some(exit),
        _ => None,
    }
}

fn output(id: &ExecutionId, n: u64) -> Event {
    Event::Output {
        phase: Phase::Provider,
        stream: Stream::Stdout,
        text: Some(format!("{id} {n}")),
        base64: None,
        partial: false,
    }
}

fn exit(id: &ExecutionId, reason: Option<FailureReason>) -> Event {
    Event::Exit(Exit {
        success: reason.is_none(),
        exit_code: Some(i32::from(reason.is_some())),
        reason,
        message: format!("{id} has ended"),
        peak_memory_bytes: None,
        oom_killed: false,
        retry_after_ms: None,
    })
}
