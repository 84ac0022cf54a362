//! Executions in containers, through the Docker API (design.md 8). A container has the name and labels of its
//! execution, so that whatever of it exists can be found without any memory.

mod attach;
mod container;
mod contents;
mod ended;
mod engine;
mod health;
mod image;
pub(crate) mod journal;
mod log_driver;
mod network;
mod pulled;
mod session;
mod sweep;
mod usage;
mod volume;

use bollard::query_parameters::{KillContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use protocol::{failure::FailureReason, ids::ExecutionId, spec::RunSpec};

pub(crate) use self::{
    attach::Attach,
    engine::{Docker, connect},
    pulled::Using,
};
use self::{
    container::socket_mount,
    engine::{name, status},
};
use super::answer::Failure;
use crate::{held::Held, home::Home};

impl Docker {
    pub(super) async fn prepare(&self, spec: &RunSpec, held: &Held) -> Result<(), Failure> {
        self.image(&spec.image, FailureReason::ImagePull, Some(held)).await?;
        self.shared_mounts(spec.harness.provider).await.map(|_| ())
    }

    pub(super) async fn create(&self, spec: &RunSpec, home: &Home) -> Result<(), Failure> {
        let mut mounts = self.shared_mounts(spec.harness.provider).await?;
        if !self.over_stdio {
            mounts.push(socket_mount(home));
        }
        mounts.extend(self.session_mounts(spec));
        let volumes = self.image_volumes(&spec.image, &mounts).await?;
        mounts.extend(volumes.into_iter().map(|path| self.anonymous_volume(spec, path)));
        let network = self.create_network(spec).await?;
        let body = self.container(spec, mounts, network);
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
        self.remove_container(id).await?;
        self.remove_network(id).await
    }

    /// With its anonymous volumes.
    async fn remove_container(&self, id: &ExecutionId) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        match self.client.remove_container(&name(id), Some(options)).await {
            Ok(()) => Ok(()),
            // 409: its removal is under way.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(self.failure(FailureReason::Unknown, "remove the container", &error)),
        }
    }
}
