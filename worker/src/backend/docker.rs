//! Executions in containers, through the Docker API (design.md 8). A container has the name and labels of its
//! execution, so that whatever of it exists can be found without any memory.

mod attach;
mod container;
mod ended;
mod image;
mod journal;
pub(super) mod network;
mod volume;

use std::collections::HashMap;

use anyhow::Context;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use protocol::{
    failure::FailureReason,
    ids::ExecutionId,
    spec::{RunSpec, Shape},
};

pub(crate) use self::attach::Attach;
use super::{Ended, Failure, Journal};
use crate::{
    config::{Config, PullPolicy},
    executions::Held,
    home::Home,
};

pub(super) const LABEL_WORKER: &str = "ozma.worker";
pub(super) const LABEL_EXECUTION: &str = "ozma.execution";

/// Longest text of the engine that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 500;

pub(crate) struct Docker {
    client: bollard::Docker,
    worker_id: String,
    sidecar_image: String,
    pull_policy: PullPolicy,
    default_shape: Shape,
    runtime: Option<String>,
    pool: network::Pool,
    log_driver: container::LogDriver,
    /// The engine is elsewhere: no folder of ours can be mounted into its containers.
    pub(super) over_stdio: bool,
    /// Thousandths of a processor the engine has; it refuses a container that may use more.
    cpu_millis: u32,
    /// One at a time looks after sidecar volumes.
    volumes: tokio::sync::Mutex<()>,
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
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let client = connect(config.docker_host.as_deref()).await?;
        let info = client.info().await.context("ask the container engine about itself")?;
        Ok(Self {
            worker_id: config.worker_id.clone(),
            sidecar_image: config.sidecar_image.clone(),
            pull_policy: config.pull_policy,
            default_shape: config.default_shape,
            runtime: config.runtime.clone(),
            pool: network::pool(&config.network_pool).context("network_pool")?,
            log_driver: container::LogDriver::of(&info, config.over_stdio()),
            over_stdio: config.over_stdio(),
            cpu_millis: info
                .ncpu
                .and_then(|cpus| u32::try_from(cpus).ok())
                .map_or(u32::MAX, |cpus| cpus.saturating_mul(1_000)),
            volumes: tokio::sync::Mutex::new(()),
            client,
        })
    }

    pub(super) async fn prepare(&self, spec: &RunSpec, held: &Held) -> Result<(), Failure> {
        self.image(&spec.image, FailureReason::ImagePull, Some(held)).await?;
        self.sidecar_volume().await.map(|_| ())
    }

    pub(super) async fn create(&self, spec: &RunSpec, home: &Home) -> Result<(), Failure> {
        let volume = self.sidecar_volume().await?;
        let network = self.create_network(spec).await?;
        let body = self.container(spec, home, &volume, network);
        self.create_container(&spec.execution_id, body).await
    }

    pub(super) async fn kill(&self, id: &ExecutionId) {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.client.kill_container(&name(id), Some(options)).await {
            Ok(()) => {}
            // 404: gone; 409: does not run.
            Err(error) if matches!(status(&error), Some(404 | 409)) => {}
            Err(error) => {
                tracing::warn!(execution.id = %id, error = %error, "the container of {id} could not be killed");
            }
        }
    }

    pub(super) async fn remove(&self, id: &ExecutionId) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        match self.client.remove_container(&name(id), Some(options)).await {
            Ok(()) => {}
            // 409: its removal is under way.
            Err(error) if matches!(status(&error), Some(404 | 409)) => {}
            Err(error) => {
                return Err(failure(FailureReason::Unknown, "remove the container", &error));
            }
        }
        self.remove_network(id).await
    }

    pub(super) async fn leftovers(&self) -> anyhow::Result<Vec<ExecutionId>> {
        let ours = format!("{LABEL_WORKER}={}", self.worker_id);
        let filters = HashMap::from([("label".to_owned(), vec![ours])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self.client.list_containers(Some(options)).await;
        let containers = containers.context("list the containers of this worker")?;
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = self.client.list_networks(Some(options)).await;
        let networks = networks.context("list the networks of this worker")?;
        let labels = containers
            .into_iter()
            .filter_map(|container| container.labels)
            .chain(networks.into_iter().filter_map(|network| network.labels));
        let mut ids: Vec<ExecutionId> =
            labels.filter_map(|labels| labels.get(LABEL_EXECUTION)?.parse().ok()).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The limits of a run: its own, the worker's where it names none. More processors than there are would be
    /// no limit, and are none.
    pub(super) fn shape(&self, spec: &RunSpec) -> Shape {
        let (own, default) = (spec.shape, self.default_shape);
        Shape {
            cpu_millis: own.cpu_millis.or(default.cpu_millis).map(|cpu| cpu.min(self.cpu_millis)),
            memory_bytes: own.memory_bytes.or(default.memory_bytes),
            pids: own.pids.or(default.pids),
        }
    }

    fn labels(&self, spec: &RunSpec) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_WORKER.to_owned(), self.worker_id.clone()),
            (LABEL_EXECUTION.to_owned(), spec.execution_id.to_string()),
            ("ozma.run".to_owned(), spec.run_id.to_string()),
            ("ozma.tenant".to_owned(), spec.tenant_id.to_string()),
        ])
    }
}

/// The name of an execution's container, and of its network.
fn name(id: &ExecutionId) -> String {
    format!("ozma-{id}")
}

/// The engine's answer, where it gave one.
fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn failure(reason: FailureReason, doing: &str, error: &bollard::errors::Error) -> Failure {
    use bollard::errors::Error;
    let cause = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    };
    let cause: String = cause.trim().chars().take(MAX_MESSAGE_CHARS).collect();
    Failure::new(reason, format!("could not {doing}: {cause}"))
}
