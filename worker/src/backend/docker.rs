//! Executions in containers, through the Docker API (design.md 8). A container has the name and labels of its
//! execution, so that whatever of it exists can be found without any memory.

mod attach;
mod container;
mod ended;
mod engine;
mod health;
mod image;
mod journal;
mod log_driver;
mod network;
mod volume;

use std::collections::HashMap;

use anyhow::Context;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use protocol::{failure::FailureReason, ids::ExecutionId, spec::RunSpec};

use self::engine::{LABEL_EXECUTION, LABEL_WORKER, name, status};
pub(crate) use self::{
    attach::Attach,
    engine::{Docker, connect},
};
use super::answer::Failure;
use crate::{held::Held, home::Home};

impl Docker {
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
                return Err(self.failure(FailureReason::Unknown, "remove the container", &error));
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
}
