//! One execution, phase by phase: clone, set up, hand over, provider, collect.
//! Whatever happens in a phase, the run ends with one exit event that names the cause.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use harness::failure::Failure;
use protocol::{
    event::{Event, Exit, Phase},
    failure::FailureReason,
};

use crate::{
    clone::{self, Cloned},
    collect::{self, Links},
    context::Context,
    exit,
    memory::Memory,
    provider, setup,
};

/// The orchestration of one [`Context`].
pub(crate) struct Execution {
    context: Context,
}

impl Execution {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Runs everything and returns how it ended; the exit event itself is still to be recorded.
    pub(crate) async fn run(&self) -> Exit {
        let timeouts = self.context.spec.timeouts;
        let limits = async {
            tokio::join!(
                self.context.stop.after(
                    timeouts.setup_secs,
                    "set-up time",
                    &[Phase::Clone, Phase::Setup]
                ),
                self.context.stop.after(
                    timeouts.run_secs,
                    "run's time",
                    &[Phase::Clone, Phase::Setup, Phase::Provider, Phase::Collect]
                ),
            );
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = self.phases() => exit,
            () = limits => unreachable!("it is pending for ever"),
        }
    }

    async fn phases(&self) -> Exit {
        let before = self.memory();
        let mut cloned = Vec::new();
        let mut links = Links::default();
        let ended = Box::pin(self.work(&mut cloned, &mut links)).await;
        // Asked now: what is ordered later does not change how the provider ended.
        let order = self.context.stop.ordered();
        self.context.reaper.kill_all().await;
        // Nothing may come after the exit event.
        self.context.held.finish().await;
        let memory = self.memory();
        if !cloned.is_empty()
            || !self.context.spec.artifacts.is_empty()
            || !links.is_empty()
            || self.context.places.transcript().is_some()
        {
            let collected = self
                .phase(Phase::Collect, collect::run(&self.context, &cloned, links), |()| true)
                .await;
            if let Err(failure) = collected {
                let text = format!("not everything could be kept: {failure}");
                self.context.recorder.note(&Event::Notice { text });
            }
            // What a repository's configuration has git start may outlive git.
            self.context.reaper.kill_all().await;
        }
        exit::decide(ended, order, before, memory)
    }

    async fn work(&self, cloned: &mut Vec<Cloned>, links: &mut Links) -> Result<Exit, Failure> {
        self.make_home()?;
        if !self.context.spec.repos.is_empty() {
            self.phase(Phase::Clone, Box::pin(clone::all(&self.context, cloned)), |()| true)
                .await?;
        }
        let directory = self.directory(cloned);
        if !self.context.spec.setup_commands.is_empty() {
            self.phase(Phase::Setup, Box::pin(setup::run(&self.context, &directory)), |()| true)
                .await?;
        }
        self.hand_over().await?;
        let provider = provider::run(&self.context, &directory, links);
        self.phase(Phase::Provider, provider, |exit| exit.success).await
    }

    /// Runs one phase between its two events; `well` says whether its result is a good one.
    async fn phase<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, Failure>>,
        well: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        self.context.stop.enter(phase);
        self.context.recorder.note(&Event::PhaseStarted { phase });
        let started = Instant::now();
        let ended = work.await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.context.recorder.note(&Event::PhaseFinished {
            phase,
            duration_ms,
            ok: ended.as_ref().is_ok_and(well),
        });
        ended
    }

    /// Where set-up and provider start: in the only repository, or in the workspace.
    fn directory(&self, cloned: &[Cloned]) -> PathBuf {
        match cloned {
            [only] => only.path.clone(),
            _ => self.context.places.workspace.clone(),
        }
    }

    /// A name to commit under. Repositories that came with the image may belong to anyone: git must not refuse
    /// to clone from them.
    fn make_home(&self) -> Result<(), Failure> {
        const CONFIG: &str = "[user]\n\tname = Ozma agent\n\temail = agent@ozma.invalid\n\
                              [safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n";
        let places = &self.context.places;
        std::fs::write(places.home.join(".gitconfig"), CONFIG)
            .map_err(|error| workspace(&places.home, &error))?;
        let is_kept = self.context.spec.session.is_some();
        places.make_session(is_kept).map_err(|error| workspace(&places.session(is_kept), &error))
    }

    async fn hand_over(&self) -> Result<(), Failure> {
        if !self.context.drop {
            return Ok(());
        }
        let places = self.context.places.clone();
        // A large workspace takes a while, and the link must live on.
        let done = tokio::task::spawn_blocking(move || places.hand_over()).await;
        done.map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| workspace(&self.context.places.workspace, &error))
    }

    fn memory(&self) -> Memory {
        // Outside a container the counters are the whole machine's.
        if self.context.unisolated { Memory::default() } else { Memory::of_container() }
    }
}

fn workspace(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureReason::WorkspaceSetup, format!("{}: {error}", path.display()))
}
