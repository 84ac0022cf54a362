//! One execution, phase by phase: clone, set up, hand over, provider, collect.
//! Whatever happens in a phase, the run ends with one exit event that names the cause.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use harness::failure::Failure;
use protocol::{
    event::{Event, Exit, Phase},
    failure::FailureReason,
    spec::RunSpec,
};
use tokio::task::JoinSet;

use crate::{
    clone::{self, Cloned},
    collect::{self, Links},
    environment::Variables,
    exit,
    memory::Memory,
    places::Places,
    provider,
    reaper::Reaper,
    record::Recorder,
    setup,
    stop::Stop,
};

pub(crate) struct Execution {
    pub(crate) spec: RunSpec,
    pub(crate) places: Places,
    pub(crate) vars: Variables,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) stop: Arc<Stop>,
    /// Children become the unprivileged user.
    pub(crate) drop: bool,
    unisolated: bool,
    /// Readers of output that something in the background still holds.
    pub(crate) held: Mutex<JoinSet<()>>,
}

impl Execution {
    #[expect(clippy::too_many_arguments, reason = "each is one thing, given once")]
    pub(crate) fn new(
        spec: RunSpec,
        places: Places,
        vars: Variables,
        recorder: Arc<Recorder>,
        reaper: Arc<Reaper>,
        stop: Arc<Stop>,
        drop: bool,
        unisolated: bool,
    ) -> Self {
        let held = Mutex::new(JoinSet::new());
        Self { spec, places, vars, recorder, reaper, stop, drop, unisolated, held }
    }

    /// Runs everything and returns how it ended; the exit event itself is still to be recorded.
    pub(crate) async fn run(&self) -> Exit {
        let timeouts = self.spec.timeouts;
        let limits = async {
            tokio::join!(
                self.stop.after(timeouts.setup_secs, "set-up time", &[Phase::Clone, Phase::Setup]),
                self.stop.after(
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
        let order = self.stop.ordered();
        self.reaper.kill_all().await;
        let memory = self.memory();
        if !cloned.is_empty() || !self.spec.artifacts.is_empty() || !links.is_empty() {
            let collected =
                self.phase(Phase::Collect, collect::run(self, &cloned, links), |()| true).await;
            if let Err(failure) = collected {
                let text = format!("not everything could be kept: {failure}");
                self.recorder.note(&Event::Notice { text });
            }
        }
        exit::decide(ended, order, before, memory)
    }

    async fn work(&self, cloned: &mut Vec<Cloned>, links: &mut Links) -> Result<Exit, Failure> {
        self.make_home()?;
        if !self.spec.repos.is_empty() {
            self.phase(Phase::Clone, Box::pin(clone::all(self, cloned)), |()| true).await?;
        }
        let directory = self.directory(cloned);
        if !self.spec.setup_commands.is_empty() {
            self.phase(Phase::Setup, setup::run(self, &directory), |()| true).await?;
        }
        self.hand_over().await?;
        let provider = provider::run(self, &directory, links);
        self.phase(Phase::Provider, provider, |exit| exit.success).await
    }

    /// Runs one phase between its two events; `well` says whether its result is a good one.
    async fn phase<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, Failure>>,
        well: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        self.stop.enter(phase);
        self.recorder.note(&Event::PhaseStarted { phase });
        let started = Instant::now();
        let ended = work.await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.recorder.note(&Event::PhaseFinished {
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
            _ => self.places.workspace.clone(),
        }
    }

    /// A name to commit under. Repositories that came with the image may belong to anyone: git must not refuse
    /// to clone from them.
    fn make_home(&self) -> Result<(), Failure> {
        const CONFIG: &str = "[user]\n\tname = Ozma agent\n\temail = agent@ozma.invalid\n\
                              [safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n";
        std::fs::write(self.places.home.join(".gitconfig"), CONFIG)
            .map_err(|error| workspace(&self.places.home, &error))
    }

    async fn hand_over(&self) -> Result<(), Failure> {
        if !self.drop {
            return Ok(());
        }
        let places = self.places.clone();
        // A large workspace takes a while, and the link must live on.
        let done = tokio::task::spawn_blocking(move || places.hand_over()).await;
        done.map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| workspace(&self.places.workspace, &error))
    }

    fn memory(&self) -> Memory {
        // Outside a container the counters are the whole machine's.
        if self.unisolated { Memory::default() } else { Memory::of_container() }
    }

    /// Lets a stream be read on in the background.
    pub(crate) fn hold(&self, reader: impl Future<Output = ()> + Send + 'static) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).spawn(reader);
    }
}

fn workspace(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureReason::WorkspaceSetup, format!("{}: {error}", path.display()))
}
