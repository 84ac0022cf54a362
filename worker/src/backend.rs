//! Where executions run. An enum over what there is; it knows containers and processes, nothing of the plane.
//! Every method may be called again after a restart, for an execution that an earlier life began.

mod answer;
mod direct;
pub(crate) mod docker;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use protocol::{
    ids::{ExecutionId, RunId},
    spec::{RunSpec, SessionSpec},
};

pub(crate) use self::{
    answer::{Attached, Ended, Failure, Journal, Usage},
    docker::{Attach, Using, connect},
};
use self::{direct::Direct, docker::Docker};
use crate::{
    boot::Moment,
    config::{self, Config},
    gate::Gate,
    held::Held,
    home::{Home, Record},
    metrics::Metrics,
    swept::Swept,
};

pub(crate) enum Backend {
    Docker(Box<Docker>),
    Direct(Direct),
}

impl Backend {
    /// # Errors
    /// The engine does not answer, or the sidecar's binary is not there.
    pub(crate) async fn open(config: &Config, gate: Arc<Gate>) -> anyhow::Result<Self> {
        Ok(match config.backend {
            config::Backend::Docker => Self::Docker(Box::new(Docker::open(config, gate).await?)),
            config::Backend::Direct => Self::Direct(Direct::open(config)?),
        })
    }

    /// Keeps the gate closed while nothing can be run; never returns.
    pub(crate) async fn watch(&self, metrics: &Metrics) {
        match self {
            Self::Docker(docker) => docker.watch(metrics).await,
            Self::Direct(_) => std::future::pending().await,
        }
    }

    /// Has the image and whatever else can be shared between runs. May be dropped at any point.
    pub(crate) async fn prepare(&self, spec: &RunSpec, held: &Held) -> Result<(), Failure> {
        match self {
            Self::Docker(docker) => docker.prepare(spec, held).await,
            Self::Direct(_) => Ok(()),
        }
    }

    /// Has what the run's conversation keeps; false while something uses it still, and `session_gone` when the run
    /// was to go on with what is not there. May be dropped at any point.
    pub(crate) async fn session(
        &self,
        spec: &RunSpec,
        session: &SessionSpec,
    ) -> Result<bool, Failure> {
        match self {
            Self::Docker(docker) => docker.session(spec, session).await,
            Self::Direct(direct) => direct.session(spec, session).await.map(|()| true),
        }
    }

    /// Every conversation that something is kept of.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(crate) async fn sessions(&self) -> anyhow::Result<Vec<RunId>> {
        let found = match self {
            Self::Docker(docker) => docker.session_volumes().await?,
            Self::Direct(direct) => direct.sessions().await?,
        };
        let ids: BTreeSet<_> = found.into_iter().map(|(id, _)| id).collect();
        Ok(ids.into_iter().collect())
    }

    /// Removes what is kept of a conversation; false when something uses it still.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) async fn remove_session(&self, conversation: &RunId) -> anyhow::Result<bool> {
        match self {
            Self::Docker(docker) => docker.remove_session(conversation).await,
            Self::Direct(direct) => direct.remove_session(conversation).await.map(|()| true),
        }
    }

    /// Makes what [`start`](Self::start) starts. Neither is to be dropped half way: what it made would not be
    /// known.
    pub(crate) async fn create(&self, spec: &RunSpec, home: &Home) -> Result<(), Failure> {
        match self {
            Self::Docker(docker) => docker.create(spec, home).await,
            Self::Direct(_) => Ok(()),
        }
    }

    /// Starts the sidecar.
    pub(crate) async fn start(&self, spec: &RunSpec, home: &Home) -> Result<(), Failure> {
        match self {
            Self::Docker(docker) => docker.start_container(&spec.execution_id).await,
            Self::Direct(direct) => direct.start(spec, home),
        }
    }

    /// How to reach the sidecar of an execution that was begun `over_stdio`; `None` where it comes by itself.
    pub(crate) fn attach(&self, id: &ExecutionId, over_stdio: bool) -> Option<Attach> {
        match self {
            Self::Docker(docker) if over_stdio => Some(docker.attach(id)),
            Self::Docker(_) | Self::Direct(_) => None,
        }
    }

    /// Waits for the end. An end long past is told at once. May be dropped and asked again.
    pub(crate) async fn ended(&self, home: &Home, id: &ExecutionId) -> Result<Ended, Failure> {
        match self {
            Self::Docker(docker) => docker.ended(id).await,
            Self::Direct(_) => Direct::ended(home).await,
        }
    }

    /// What the sidecar left unacknowledged; `None` where there is nothing to read.
    pub(crate) async fn journal(&self, home: &Home, id: &ExecutionId) -> Option<Journal> {
        match self {
            Self::Docker(docker) => docker.journal(id).await,
            Self::Direct(_) => Direct::journal(home),
        }
    }

    /// Ends every process of it, now. What does not run is left alone.
    pub(crate) async fn kill(&self, home: &Home, id: &ExecutionId) {
        match self {
            Self::Docker(docker) => docker.kill(id).await,
            Self::Direct(_) => Direct::kill(home),
        }
    }

    /// Removes everything of it but the home. What is gone already is removed.
    pub(crate) async fn remove(&self, home: &Home, id: &ExecutionId) -> Result<(), Failure> {
        match self {
            Self::Docker(docker) => docker.remove(id).await,
            Self::Direct(_) => {
                Direct::kill(home);
                Ok(())
            }
        }
    }

    /// Removes what this worker has in the engine of executions that are not live, and counts it.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn sweep(
        &self,
        is_live: &(dyn Fn(&ExecutionId) -> bool + Sync),
        swept: &mut Swept,
    ) -> anyhow::Result<()> {
        match self {
            Self::Docker(docker) => docker.sweep(is_live, swept).await,
            Self::Direct(_) => Ok(()),
        }
    }

    /// What there is of this worker's in the engine, in bytes. Slow: the engine counts.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn usage(&self) -> anyhow::Result<Usage> {
        match self {
            Self::Docker(docker) => docker.usage().await,
            Self::Direct(direct) => direct.usage().await,
        }
    }

    /// A folder of the engine's data, where it is on this machine.
    pub(crate) fn data(&self) -> Option<&Path> {
        match self {
            Self::Docker(docker) => docker.data.as_deref(),
            Self::Direct(_) => None,
        }
    }

    /// Keeps an image from being removed by [`remove_an_image`](Self::remove_an_image).
    pub(crate) fn using(&self, image: &str) -> Option<Using<'_>> {
        match self {
            Self::Docker(docker) => Some(docker.pulled.using(image)),
            Self::Direct(_) => None,
        }
    }

    /// Removes one image that this worker pulled and nothing uses; its name, `None` when there is none.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn remove_an_image(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Docker(docker) => docker.remove_an_image().await,
            Self::Direct(_) => Ok(None),
        }
    }

    /// Removes what this worker shares between runs and no run needs any more.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn tidy(&self) -> anyhow::Result<()> {
        match self {
            Self::Docker(docker) => docker.remove_old_volumes().await,
            Self::Direct(_) => Ok(()),
        }
    }

    /// Mode of an execution's folder.
    pub(crate) fn home_mode(&self) -> u32 {
        match self {
            Self::Docker(_) => 0o700,
            Self::Direct(_) => Direct::home_mode(),
        }
    }

    /// Whether sidecars started from now on are reached through the engine.
    fn over_stdio(&self) -> bool {
        match self {
            Self::Docker(docker) => docker.over_stdio,
            Self::Direct(_) => false,
        }
    }

    /// The memory limit a run gets, in bytes.
    pub(crate) fn memory_bytes(&self, spec: &RunSpec) -> Option<u64> {
        match self {
            Self::Docker(docker) => docker.shape(spec).memory_bytes,
            Self::Direct(_) => None,
        }
    }
}

impl Record {
    pub(crate) fn new(spec: &RunSpec, backend: &Backend, now_ms: i64) -> Self {
        Self {
            run_id: spec.run_id.clone(),
            execution_id: spec.execution_id.clone(),
            tenant_id: spec.tenant_id.clone(),
            run_secs: spec.timeouts.run_secs,
            started_ms: now_ms,
            started: Some(Moment::now()),
            memory_bytes: backend.memory_bytes(spec),
            stdio: backend.over_stdio(),
            conversation: spec.session.as_ref().map(|session| session.conversation_id.clone()),
        }
    }
}
