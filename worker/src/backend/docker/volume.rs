//! The volume with the sidecar, one for each sidecar image, mounted read-only into every run.
//!
//! It is filled by creating, never starting, a container of that image with the volume at `/agent`: the engine
//! copies the image's files in then. That container's name is the lock between workers of one engine, and its
//! presence says that the copy may not be complete.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    },
};
use protocol::{
    failure::FailureReason,
    sidecar::{SIDECAR_BINARY, SIDECAR_MOUNT},
};
use tokio::time::Instant;

use super::{Docker, Failure, failure, status};

/// How long another worker's copy is waited for; one this old was left by a crash and is complete, since the
/// engine copies within the one call.
const FILL_WITHIN: Duration = Duration::from_secs(30);

/// On every volume that was filled here, from the moment it exists.
const LABEL: &str = "ozma.sidecar";

enum Standing {
    Filled,
    Absent,
    /// Made by the engine for a container that named it just when somebody had removed it: empty.
    Stray,
}

impl Docker {
    /// The volume's name; it is there and filled.
    pub(super) async fn sidecar_volume(&self) -> Result<String, Failure> {
        let _one_at_a_time = self.volumes.lock().await;
        let id = self.image(&self.sidecar_image, FailureReason::SidecarPrep, None).await?;
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        let (volume, filler) = (format!("ozma-sidecar-{short}"), format!("ozma-fill-{short}"));
        let deadline = Instant::now() + FILL_WITHIN;
        loop {
            let standing = self.standing(&volume).await?;
            if self.filling(&filler).await? {
                if Instant::now() >= deadline {
                    self.remove_filler(&filler).await?;
                }
            } else {
                match standing {
                    Standing::Filled => return Ok(volume),
                    Standing::Absent if self.fill(&volume, &filler).await? => return Ok(volume),
                    Standing::Absent => {}
                    Standing::Stray => self.remove_stray(&volume, deadline).await?,
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn standing(&self, volume: &str) -> Result<Standing, Failure> {
        match self.client.inspect_volume(volume).await {
            Ok(found) if found.labels.contains_key(LABEL) => Ok(Standing::Filled),
            Ok(_) => Ok(Standing::Stray),
            Err(error) if status(&error) == Some(404) => Ok(Standing::Absent),
            Err(error) => Err(prep_failure("look for the sidecar's volume", &error)),
        }
    }

    /// Waits, within bounds, for whoever still uses it.
    async fn remove_stray(&self, volume: &str, deadline: Instant) -> Result<(), Failure> {
        match self.remove_volume(volume).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(409) && Instant::now() < deadline => Ok(()),
            Err(error) => Err(prep_failure("remove an empty volume of the sidecar's", &error)),
        }
    }

    async fn remove_volume(&self, volume: &str) -> Result<(), bollard::errors::Error> {
        match self.client.remove_volume(volume, None::<RemoveVolumeOptions>).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            done => done,
        }
    }

    async fn filling(&self, filler: &str) -> Result<bool, Failure> {
        match self.client.inspect_container(filler, None).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(prep_failure("look for the sidecar's volume", &error)),
        }
    }

    /// False when somebody else is at it.
    async fn fill(&self, volume: &str, filler: &str) -> Result<bool, Failure> {
        let labels = HashMap::from([(LABEL.to_owned(), self.sidecar_image.clone())]);
        let mount = Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume.to_owned()),
            target: Some(SIDECAR_MOUNT.to_owned()),
            volume_options: Some(MountVolumeOptions {
                labels: Some(labels.clone()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        let body = ContainerCreateBody {
            image: Some(self.sidecar_image.clone()),
            // Never run; an image without a command needs one to be created.
            entrypoint: Some(vec![SIDECAR_BINARY.to_owned()]),
            labels: Some(labels),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(filler).build();
        match self.client.create_container(Some(options), body).await {
            Ok(_) => {
                let found = self.holds_sidecar(filler).await;
                self.remove_filler(filler).await?;
                if let Err(failure) = found {
                    // An empty volume would be taken for a filled one by the next run.
                    let _ = self.remove_volume(volume).await;
                    return Err(failure);
                }
                Ok(true)
            }
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(prep_failure("fill the sidecar's volume", &error)),
        }
    }

    async fn holds_sidecar(&self, filler: &str) -> Result<(), Failure> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(SIDECAR_BINARY).build();
        match self.client.get_container_archive_info(filler, Some(options)).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Err(Failure::new(
                FailureReason::SidecarPrep,
                format!("image {} has no {SIDECAR_BINARY}; is it a sidecar's?", self.sidecar_image),
            )),
            Err(error) => Err(prep_failure("look into the sidecar's image", &error)),
        }
    }

    async fn remove_filler(&self, filler: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.client.remove_container(filler, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(prep_failure("finish the sidecar's volume", &error)),
        }
    }
}

fn prep_failure(doing: &str, error: &bollard::errors::Error) -> Failure {
    failure(FailureReason::SidecarPrep, doing, error)
}
