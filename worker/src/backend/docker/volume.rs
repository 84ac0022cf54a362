//! The volume with the sidecar, one for each sidecar image, mounted read-only into every run.
//!
//! It is filled by creating, never starting, a container of that image with the volume at `/agent`: the engine
//! copies the image's files in then. That container's name is the lock between workers of one engine, and its
//! presence says that the copy may not be complete.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Context;
use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
        ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptions,
    },
};
use protocol::{
    failure::FailureReason,
    sidecar::{SIDECAR_BINARY, SIDECAR_MOUNT},
};
use tokio::time::Instant;

use super::engine::{Docker, status};
use crate::backend::answer::Failure;

/// How long another worker's copy is waited for; one this old was left by a crash and is complete, since the
/// engine copies within the one call.
const FILL_WITHIN: Duration = Duration::from_secs(30);

/// On every volume that was filled here, from the moment it exists.
const LABEL: &str = "ozma.sidecar";

/// What their names begin with.
const VOLUMES: &str = "ozma-sidecar-";

/// Containers that fill volumes, by when each was first seen by whoever tidies up.
pub(super) type Fillers = HashMap<String, Instant>;

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
        let (volume, filler) = (volume_of(&id), format!("ozma-fill-{}", short(&id)));
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

    /// Removes the volumes of earlier images that had our sidecar image's name, unless a container uses them.
    /// Those of other names are other workers'.
    pub(in crate::backend) async fn remove_old_volumes(&self) -> anyhow::Result<()> {
        let mut seen = self.volumes.lock().await;
        self.remove_old_fillers(&mut seen).await?;
        let present = self.image_id(&self.sidecar_image, FailureReason::SidecarPrep).await?;
        // Without the image nobody knows which volume is old.
        let Some(present) = present.map(|id| volume_of(&id)) else { return Ok(()) };
        let ours = format!("{LABEL}={}", self.sidecar_image);
        let filters = HashMap::from([
            ("label".to_owned(), vec![ours]),
            ("dangling".to_owned(), vec!["true".to_owned()]),
        ]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_volumes(Some(options)).await;
        let found = found.context("list the sidecar's volumes")?.volumes.unwrap_or_default();
        for volume in found.into_iter().map(|volume| volume.name) {
            if volume == present || !volume.starts_with(VOLUMES) {
                continue;
            }
            match self.remove_volume(&volume).await {
                Ok(()) => tracing::info!("volume {volume} of an earlier sidecar was removed"),
                // Used again since the listing.
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => return Err(error).with_context(|| format!("remove {volume}")),
            }
        }
        Ok(())
    }

    /// Removes what a crash left of a fill: a volume it names would never be unused.
    async fn remove_old_fillers(&self, seen: &mut Fillers) -> anyhow::Result<()> {
        let label = format!("{LABEL}={}", self.sidecar_image);
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client.list_containers(Some(options)).await;
        let found = found.context("list what fills the sidecar's volumes")?;
        let found: HashSet<String> = found.into_iter().filter_map(|found| found.id).collect();
        seen.retain(|id, _| found.contains(id));
        for id in found {
            let since = *seen.entry(id.clone()).or_insert_with(Instant::now);
            if since.elapsed() > FILL_WITHIN {
                self.remove_filler(&id).await?;
            }
        }
        Ok(())
    }

    async fn standing(&self, volume: &str) -> Result<Standing, Failure> {
        match self.client.inspect_volume(volume).await {
            Ok(found) if found.labels.contains_key(LABEL) => Ok(Standing::Filled),
            Ok(_) => Ok(Standing::Stray),
            Err(error) if status(&error) == Some(404) => Ok(Standing::Absent),
            Err(error) => Err(self.prep_failure("look for the sidecar's volume", &error)),
        }
    }

    /// Waits, within bounds, for whoever still uses it.
    async fn remove_stray(&self, volume: &str, deadline: Instant) -> Result<(), Failure> {
        match self.remove_volume(volume).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(409) && Instant::now() < deadline => Ok(()),
            Err(error) => Err(self.prep_failure("remove an empty volume of the sidecar's", &error)),
        }
    }

    pub(super) async fn remove_volume(&self, volume: &str) -> Result<(), bollard::errors::Error> {
        match self.client.remove_volume(volume, None::<RemoveVolumeOptions>).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            done => done,
        }
    }

    async fn filling(&self, filler: &str) -> Result<bool, Failure> {
        match self.client.inspect_container(filler, None).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.prep_failure("look for the sidecar's volume", &error)),
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
            Err(error) => Err(self.prep_failure("fill the sidecar's volume", &error)),
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
            Err(error) => Err(self.prep_failure("look into the sidecar's image", &error)),
        }
    }

    async fn remove_filler(&self, filler: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.client.remove_container(filler, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(self.prep_failure("finish the sidecar's volume", &error)),
        }
    }

    fn prep_failure(&self, doing: &str, error: &bollard::errors::Error) -> Failure {
        self.failure(FailureReason::SidecarPrep, doing, error)
    }
}

/// An image's id as far as names need it.
fn short(image_id: &str) -> &str {
    let id = image_id.trim_start_matches("sha256:");
    id.get(..12).unwrap_or(id)
}

fn volume_of(image_id: &str) -> String {
    format!("{VOLUMES}{}", short(image_id))
}
