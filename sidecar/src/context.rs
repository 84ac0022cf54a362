//! What every step of an execution is given: the assignment, the places, where events go, how children start.
//! It knows no step.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::spec::RunSpec;
use tokio::task::JoinSet;

use crate::{
    environment::Variables, places::Places, privileges, reaper::Reaper, record::Recorder,
    stop::Stop,
};

pub(crate) struct Context {
    pub(crate) spec: RunSpec,
    pub(crate) places: Places,
    pub(crate) vars: Variables,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) stop: Arc<Stop>,
    /// Children become the unprivileged user.
    pub(crate) drop: bool,
    /// Not in a container of its own.
    pub(crate) unisolated: bool,
    /// Readers of output that something in the background still holds.
    pub(crate) held: Held,
}

/// How long output may still be taken after everything was killed.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Streams that are read on after their process has ended.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<JoinSet<()>>);

impl Held {
    /// Lets a stream be read on in the background.
    pub(crate) fn add(&self, reader: impl Future<Output = ()> + Send + 'static) {
        self.readers().spawn(reader);
    }

    /// Reads to the end what is held no more; ends what still is. No reader is left afterwards.
    pub(crate) async fn finish(&self) {
        let mut readers = std::mem::take(&mut *self.readers());
        let all = async { while readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_OUTPUT, all).await;
        readers.shutdown().await;
    }

    fn readers(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// What every child gets of this process's variables.
    pub(crate) fn base(&self) -> BTreeMap<String, OsString> {
        self.vars.base(&self.places.home, self.places.temporary.as_deref())
    }

    /// This binary in another mode, as the agent's user where that can be. To be started by the thread that asks.
    pub(crate) fn agent(&self, mode: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(mode)
            .args(self.drop.then_some("--drop"))
            .env_clear()
            .envs(self.base())
            .env("USER", "ozma")
            .env("LOGNAME", "ozma")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        if self.drop {
            privileges::as_agent(&mut command);
        }
        command
    }
}
