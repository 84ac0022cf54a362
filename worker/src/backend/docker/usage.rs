//! What this worker's containers, their volumes and the images it pulled take of the engine's disk. The engine
//! walks through each container's layer for it, so it is asked seldom.

use std::path::PathBuf;

use anyhow::Context;
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::{
    engine::{Docker, status},
    sweep::execution,
};
use crate::{backend::answer::Usage, tree::bytes_below};

impl Docker {
    /// # Errors
    /// The engine does not answer.
    pub(in crate::backend) async fn usage(&self) -> anyhow::Result<Usage> {
        let filters = self.ours();
        let options = ListContainersOptionsBuilder::new().all(true).size(true).filters(&filters);
        let containers = self.client.list_containers(Some(options.build())).await;
        let containers = containers.context("measure the containers of this worker")?;
        let mut usage = Usage { images: self.image_bytes().await?, ..Usage::default() };
        for container in containers {
            let bytes = container.size_rw.and_then(|bytes| u64::try_from(bytes).ok());
            if let Some(id) = container.labels.as_ref().and_then(execution) {
                usage.add(id, bytes.unwrap_or(0));
            }
        }
        let (volumes, kept) = (self.mounted_volumes().await?, self.session_volumes().await?);
        // An engine elsewhere has them elsewhere: they are not counted then.
        let count = move || {
            let sizes = volumes.into_iter().map(|(path, id)| (id, bytes_below(&path)));
            let kept = kept.into_iter().map(|(id, path)| (id, bytes_below(&path)));
            (sizes.collect::<Vec<_>>(), kept.collect::<Vec<_>>())
        };
        let (sizes, kept) = tokio::task::spawn_blocking(count).await?;
        for (id, bytes) in sizes {
            usage.add(id, bytes);
        }
        for (id, bytes) in kept {
            let taken = usage.sessions.entry(id).or_default();
            *taken = taken.saturating_add(bytes);
        }
        Ok(usage)
    }

    async fn image_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0_u64;
        for (name, id) in self.pulled.all() {
            match self.client.inspect_image(&name).await {
                Ok(found) if found.id.as_deref() == Some(&id) => {
                    let size = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                    bytes = bytes.saturating_add(size);
                }
                Ok(_) => {}
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(error).context("measure an image"),
            }
        }
        Ok(bytes)
    }

    async fn mounted_volumes(&self) -> anyhow::Result<Vec<(PathBuf, protocol::ids::ExecutionId)>> {
        let volumes = self.volumes_of_runs().await?;
        Ok(volumes.into_iter().map(|volume| (volume.mountpoint.into(), volume.execution)).collect())
    }
}
