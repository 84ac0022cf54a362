//! The container engine as everything here uses it: the connection, what it was asked once at the start, the
//! names and labels of what is ours, and its errors as failures.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use protocol::{
    failure::FailureReason,
    ids::ExecutionId,
    spec::{RunSpec, Shape},
};

use super::{contents::Known, log_driver::LogDriver, pulled::Pulled};
use crate::{
    backend::answer::Failure,
    config::{Config, HarnessImages, PullPolicy},
    gate::Gate,
    subnets::{self, Pool},
};

pub(super) const LABEL_WORKER: &str = "ozma.worker";
pub(super) const LABEL_TENANT: &str = "ozma.tenant";
pub(super) const LABEL_EXECUTION: &str = "ozma.execution";

/// Longest text of the engine that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 500;

pub(crate) struct Docker {
    pub(super) client: bollard::Docker,
    pub(super) worker_id: String,
    pub(super) sidecar_image: String,
    pub(super) pull_policy: PullPolicy,
    pub(super) default_shape: Shape,
    pub(super) runtime: Option<String>,
    pub(super) pool: Pool,
    pub(super) log_driver: LogDriver,
    /// The engine is elsewhere: no folder of ours can be mounted into its containers.
    pub(in crate::backend) over_stdio: bool,
    /// Thousandths of a processor the engine has; it refuses a container that may use more.
    pub(super) cpu_millis: u32,
    pub(super) harness_images: HarnessImages,
    /// One at a time looks after volumes with files of ours.
    pub(super) volumes: tokio::sync::Mutex<Known>,
    pub(super) gate: Arc<Gate>,
    pub(in crate::backend) pulled: Pulled,
    /// Where it keeps its data, on this machine.
    pub(in crate::backend) data: Option<PathBuf>,
}

/// Connects to `host`, or to the usual socket, and agrees on an API version: an engine refuses one newer than
/// its own.
pub(crate) async fn connect(host: Option<&str>) -> anyhow::Result<bollard::Docker> {
    let host = host.unwrap_or("unix:///var/run/docker.sock");
    let client = bollard::Docker::connect_with_host(host)
        .with_context(|| format!("find the container engine at {host}"))?;
    client
        .negotiate_version()
        .await
        .with_context(|| format!("talk to the container engine at {host}"))
}

impl Docker {
    pub(in crate::backend) async fn open(config: &Config, gate: Arc<Gate>) -> anyhow::Result<Self> {
        let client = connect(config.docker_host.as_deref()).await?;
        let info = client.info().await.context("ask the container engine about itself")?;
        Ok(Self {
            worker_id: config.worker_id.clone(),
            sidecar_image: config.sidecar_image.clone(),
            harness_images: config.harness_images.clone(),
            pull_policy: config.pull_policy,
            default_shape: config.default_shape,
            runtime: config.runtime.clone(),
            pool: subnets::pool(&config.network_pool).context("network_pool")?,
            log_driver: LogDriver::of(&info, config.over_stdio()),
            over_stdio: config.over_stdio(),
            cpu_millis: info
                .ncpu
                .and_then(|cpus| u32::try_from(cpus).ok())
                .map_or(u32::MAX, |cpus| cpus.saturating_mul(1_000)),
            volumes: tokio::sync::Mutex::default(),
            pulled: Pulled::open(&config.state_dir),
            data: info.docker_root_dir.filter(|_| !config.over_stdio()).map(PathBuf::from),
            gate,
            client,
        })
    }

    /// The limits of a run: its own, the worker's where it names none. More processors than there are would be
    /// no limit, and are none.
    pub(in crate::backend) fn shape(&self, spec: &RunSpec) -> Shape {
        let (own, default) = (spec.shape, self.default_shape);
        Shape {
            cpu_millis: own.cpu_millis.or(default.cpu_millis).map(|cpu| cpu.min(self.cpu_millis)),
            memory_bytes: own.memory_bytes.or(default.memory_bytes),
            pids: own.pids.or(default.pids),
        }
    }

    /// An error of the engine's as a failure. One that is no answer closes the gate, until the engine answers.
    pub(super) fn failure(
        &self,
        reason: FailureReason,
        doing: &str,
        error: &bollard::errors::Error,
    ) -> Failure {
        use bollard::errors::Error;
        let cause = match error {
            Error::DockerResponseServerError { message, .. } => message.clone(),
            Error::DockerStreamError { error } => error.clone(),
            other if is_answer(other) => other.to_string(),
            other => {
                self.gate.doubt_engine();
                format!("the container engine does not answer ({other})")
            }
        };
        let cause: String = cause.trim().chars().take(MAX_MESSAGE_CHARS).collect();
        Failure::new(reason, format!("could not {doing}: {cause}"))
    }

    pub(super) fn labels(&self, spec: &RunSpec) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_WORKER.to_owned(), self.worker_id.clone()),
            (LABEL_EXECUTION.to_owned(), spec.execution_id.to_string()),
            ("ozma.run".to_owned(), spec.run_id.to_string()),
            (LABEL_TENANT.to_owned(), spec.tenant_id.to_string()),
        ])
    }
}

/// Whether the engine itself said no. Any other error says that it could not be asked, or broke off.
fn is_answer(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    matches!(
        error,
        Error::DockerResponseServerError { .. }
            | Error::DockerStreamError { .. }
            | Error::DockerContainerWaitError { .. }
            | Error::JsonDataError { .. }
    )
}

/// The name of an execution's container, and of its network.
pub(super) fn name(id: &ExecutionId) -> String {
    format!("ozma-{id}")
}

/// The engine's answer, where it gave one.
pub(super) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
