//! One run of the harness in this process: its events shown, written down and summed up.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    api::{events::EventView, time::Timestamp},
    event::{Artifact, Event, EventLine, Exit, Phase, Stream},
    evidence::{Facts, Fold},
    failure::{FailureReason, Fault},
    ids::{ArtifactUid, ExecutionId, RunId},
    run::RunState,
    sidecar::{Launch, TRANSCRIPT_FILE},
    spec::ProviderKind,
};
use service::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Format;
use crate::{
    evidence::Evidence,
    failure::{Failure, code},
    interrupts::Interrupts,
    outcome, render,
    term::{Style, Term},
};

/// Events on their way; a provider waits beyond it.
const EVENTS: usize = 64;

/// From the first interrupt to the kill of whatever still runs.
const GRACE: Duration = Duration::from_secs(10);

/// What is to be run.
pub(super) struct Drive {
    pub launch: Launch,
    /// Who answers, for people.
    pub name: String,
    /// As the user gave it.
    pub prompt: String,
    pub project: PathBuf,
    pub format: Format,
}

/// How it ended.
pub(super) struct Outcome {
    pub exit_code: u8,
}

impl Drive {
    /// Runs it to its end, or until the second interrupt.
    ///
    /// # Errors
    /// Evidence cannot be written, standard output is closed, or the user left.
    pub(super) async fn run(
        self,
        mut interrupts: Interrupts,
        term: &mut Term,
    ) -> Result<Outcome, Failure> {
        let run_id = RunId::from_uuid(Uuid::now_v7());
        let evidence = Evidence::begin(&self.project, &run_id).map_err(|failure| {
            failure.hint("it stands in the project, which --project names: one that you can write")
        })?;
        let provider = self.launch.harness.provider;
        let transcript = Path::new(&self.launch.state_directory).join(TRANSCRIPT_FILE);
        let mut told = Told::new(&self, run_id.clone(), evidence);
        if self.format == Format::Text {
            term.line(&term.paint(Style::Dim, &format!("run {run_id}: {}", self.name)))?;
        }
        told.tell(begun(), term)?;
        told.tell(Event::PhaseStarted { phase: Phase::Provider }, term)?;

        let began = Instant::now();
        let cancel = CancellationToken::new();
        let (sender, mut events) = mpsc::channel(EVENTS);
        let mut running = Box::pin(harness::run(self.launch, sender, cancel.clone()));
        let mut deadline = None;
        let exit = loop {
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    if cancel.is_cancelled() {
                        return Err(left(&told));
                    }
                    term.note("interrupting; Ctrl-C again leaves without waiting");
                    cancel.cancel();
                    deadline = Some(Instant::now() + GRACE);
                }
                Some(event) = events.recv() => told.tell(event, term)?,
                exit = &mut running => break exit,
                () = tokio::time::sleep_until(deadline.unwrap_or(began)), if deadline.is_some() => {
                    break killed();
                }
            }
        };
        // What has not ended by now ends with it.
        drop(running);
        while let Some(event) = events.recv().await {
            told.tell(event, term)?;
        }
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let finished =
            Event::PhaseFinished { phase: Phase::Provider, duration_ms, ok: exit.success };
        told.tell(finished, term)?;
        match told.keep(&transcript) {
            Ok(Some(artifact)) => told.tell(Event::Artifact(artifact), term)?,
            Ok(None) => {}
            Err(error) => term.note(&format!("the transcript could not be kept: {error}")),
        }
        told.tell(Event::Exit(exit.clone()), term)?;
        let state = state(&exit);
        told.tell(ended(state, &exit), term)?;
        if provider != ProviderKind::Command
            && let Some(FailureReason::AuthMissing | FailureReason::AgentInvocation) = exit.reason
        {
            // The harness speaks of workers and images, which are not here.
            term.note(
                "hint: here the key and the address come from your own environment, and the model from \
                 --model PROVIDER/MODEL; `ozma doctor --offline` says what is found",
            );
        }
        told.end(state, provider, term)
    }
}

/// It had its time to stop.
fn killed() -> Exit {
    Exit {
        reason: Some(FailureReason::TaskCancelled),
        message: format!("the provider did not stop within {} s and was killed", GRACE.as_secs()),
        ..Exit::default()
    }
}

fn begun() -> Event {
    Event::State {
        state: RunState::Inprogress,
        attempt: 1,
        reason: None,
        message: None,
        worker_id: None,
        cancelling: false,
    }
}

fn ended(state: RunState, exit: &Exit) -> Event {
    Event::State {
        state,
        attempt: 1,
        reason: exit.reason.filter(|_| !exit.success),
        message: Some(exit.message.clone()),
        worker_id: None,
        cancelling: false,
    }
}

/// The state a plane would give it.
fn state(exit: &Exit) -> RunState {
    match exit.reason {
        _ if exit.success => RunState::Succeeded,
        Some(FailureReason::TaskCancelled) => RunState::Cancelled,
        Some(reason) if reason.fault() == Fault::Platform => RunState::Error,
        _ => RunState::Failed,
    }
}

fn left(told: &Told) -> Failure {
    let mut failure = Failure::quiet(code::CANCELLED);
    "left before the provider had stopped".clone_into(&mut failure.message);
    failure.hint(format!("what it did so far is in {}", told.evidence.folder().display()))
}

/// What was said so far, to everybody who listens.
struct Told {
    run_id: RunId,
    execution_id: ExecutionId,
    evidence: Evidence,
    fold: Fold,
    clock: Clock,
    seq: u64,
    full: bool,
    format: Format,
    /// The final answer, or what a program printed.
    answer: String,
    program: bool,
}

impl Told {
    fn new(drive: &Drive, run_id: RunId, evidence: Evidence) -> Self {
        let harness = &drive.launch.harness;
        let execution_id = ExecutionId::from_uuid(Uuid::now_v7());
        let fold = Fold::new(Facts {
            run_id: run_id.clone(),
            execution_id: Some(execution_id.clone()),
            attempt: 1,
            prompt_sha256: hex::encode(Sha256::digest(drive.prompt.as_bytes())),
            provider: harness.provider.as_str().to_owned(),
            model: harness.model.clone(),
            phases: std::collections::BTreeMap::new(),
        });
        Self {
            run_id,
            execution_id,
            evidence,
            fold,
            clock: Clock::system(),
            seq: 0,
            full: false,
            format: drive.format,
            answer: String::new(),
            program: harness.provider == ProviderKind::Command,
        }
    }

    fn tell(&mut self, event: Event, term: &mut Term) -> Result<(), Failure> {
        self.seq += 1;
        let at_ms = self.clock.now_ms();
        self.fold.see(Some(&self.execution_id), at_ms, Some(&event));
        let line = EventLine::new(self.seq, at_ms, &event);
        let view = EventView {
            seq: self.seq,
            at: Timestamp(at_ms),
            execution_id: Some(self.execution_id.clone()),
            kind: line.kind,
            data: line.data,
        };
        if !self.evidence.event(&view)? && !self.full {
            self.full = true;
            let truncated = Event::Truncated { what: "events.jsonl".to_owned(), limit: self.seq };
            self.fold.see(Some(&self.execution_id), at_ms, Some(&truncated));
            term.note("events.jsonl is full: further events are left out of it");
        }
        match self.format {
            Format::Json => term.json(&view)?,
            Format::Text => {
                for line in render::lines(term, &event) {
                    term.line(&line)?;
                }
            }
            Format::Answer => self.listen(event, term)?,
        }
        Ok(())
    }

    /// Keeps the answer; a program has none but what it prints.
    fn listen(&mut self, event: Event, term: &mut Term) -> Result<(), Failure> {
        match event {
            Event::Answer { text, .. } => self.answer = text,
            Event::Output { stream: Stream::Stdout, text: Some(text), partial, .. }
                if self.program =>
            {
                let end = if partial { "" } else { "\n" };
                term.bytes(format!("{text}{end}").as_bytes())?;
            }
            Event::State { state, message: Some(message), .. }
                if state.is_terminal() && state != RunState::Succeeded =>
            {
                term.note(&format!("{state}: {}", crate::text::printable(&message)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts what the provider printed beside the other evidence.
    fn keep(&self, transcript: &Path) -> io::Result<Option<Artifact>> {
        let mut from = match File::open(transcript) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut to = options.open(self.evidence.folder().join(TRANSCRIPT_FILE))?;
        let (mut digest, mut size) = (Sha256::new(), 0);
        let mut part = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut part)?;
            if read == 0 {
                break;
            }
            to.write_all(&part[..read])?;
            digest.update(&part[..read]);
            size += u64::try_from(read).unwrap_or(u64::MAX);
        }
        Ok(Some(Artifact {
            artifact_uid: ArtifactUid::from_uuid(Uuid::now_v7()),
            artifact_type: "FILE".to_owned(),
            filename: Some(TRANSCRIPT_FILE.to_owned()),
            filepath: None,
            mime_type: Some("application/x-ndjson".to_owned()),
            description: Some("what the provider printed".to_owned()),
            size_bytes: Some(size),
            sha256: Some(hex::encode(digest.finalize())),
            url: None,
            branch: None,
        }))
    }

    fn end(
        self,
        state: RunState,
        provider: ProviderKind,
        term: &mut Term,
    ) -> Result<Outcome, Failure> {
        let summary = self.fold.finish(true);
        self.evidence.summary(&summary)?;
        let exit_code = outcome::exit_code(state);
        let folder = self.evidence.folder().display();
        match self.format {
            Format::Json => term.json(&serde_json::json!({
                "kind": "outcome", "run_id": self.run_id, "state": state, "exit_code": exit_code,
                "provider": provider, "evidence": folder.to_string(), "summary": summary,
            }))?,
            Format::Text => term.line(&term.paint(Style::Dim, &format!("evidence in {folder}")))?,
            Format::Answer if self.answer.is_empty() => {}
            Format::Answer => term.line(self.answer.trim_end())?,
        }
        Ok(Outcome { exit_code })
    }
}
