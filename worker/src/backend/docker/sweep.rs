//! What carries this worker's label in the engine and belongs to no execution that it holds: found and removed,
//! again and again. What carries another worker's label, or none, is never touched.

use std::collections::HashMap;

use anyhow::Context;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use protocol::ids::ExecutionId;

use super::engine::{Docker, LABEL_EXECUTION, LABEL_WORKER, status};
use crate::swept::Swept;

type Labels = HashMap<String, String>;

/// One that an execution's image asked for.
pub(super) struct Volume {
    name: String,
    /// On the engine's machine.
    pub(super) mountpoint: String,
    pub(super) execution: ExecutionId,
}

impl Docker {
    /// Removes what no execution owns. `is_live` is asked after each listing: an execution is held before
    /// anything of it exists, so what is being started is never an orphan.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(in crate::backend) async fn sweep(
        &self,
        is_live: &(dyn Fn(&ExecutionId) -> bool + Sync),
        swept: &mut Swept,
    ) -> anyhow::Result<()> {
        for id in self.containers().await?.into_iter().filter(|id| !is_live(id)) {
            tracing::info!(execution.id = %id, "the container that execution {id} left is removed");
            match self.remove_container(&id).await {
                Ok(()) => swept.containers += 1,
                Err(failure) => swept.failed(&failure.into()),
            }
        }
        for id in self.networks().await?.into_iter().filter(|id| !is_live(id)) {
            tracing::info!(execution.id = %id, "the network that execution {id} left is removed");
            match self.remove_network(&id).await {
                Ok(()) => swept.networks += 1,
                Err(failure) => swept.failed(&failure.into()),
            }
        }
        for Volume { name, execution: id, .. } in self.volumes_of_runs().await? {
            if !is_live(&id) {
                tracing::info!(execution.id = %id, "a volume that execution {id} left is removed");
                match self.remove_volume(&name).await {
                    Ok(()) => swept.volumes += 1,
                    // Somebody's container uses it: theirs now.
                    Err(error) if status(&error) == Some(409) => {}
                    Err(error) => {
                        swept.failed(&anyhow::Error::new(error).context("remove a volume"));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn ours(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{LABEL_WORKER}={}", self.worker_id);
        HashMap::from([("label".to_owned(), vec![label])])
    }

    async fn containers(&self) -> anyhow::Result<Vec<ExecutionId>> {
        let filters = self.ours();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client.list_containers(Some(options)).await;
        let found = found.context("list the containers of this worker")?;
        Ok(found.into_iter().filter_map(|found| execution(&found.labels?)).collect())
    }

    async fn networks(&self) -> anyhow::Result<Vec<ExecutionId>> {
        let filters = self.ours();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_networks(Some(options)).await;
        let found = found.context("list the networks of this worker")?;
        Ok(found.into_iter().filter_map(|found| execution(&found.labels?)).collect())
    }

    pub(super) async fn volumes_of_runs(&self) -> anyhow::Result<Vec<Volume>> {
        let filters = self.ours();
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_volumes(Some(options)).await;
        let found = found.context("list the volumes of this worker")?.volumes.unwrap_or_default();
        let ours = |volume: bollard::models::Volume| {
            let execution = execution(&volume.labels)?;
            Some(Volume { name: volume.name, mountpoint: volume.mountpoint, execution })
        };
        Ok(found.into_iter().filter_map(ours).collect())
    }
}

pub(super) fn execution(labels: &Labels) -> Option<ExecutionId> {
    labels.get(LABEL_EXECUTION)?.parse().ok()
}
