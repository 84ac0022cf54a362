//! Volumes with files of ours, filled once for each image they come from and mounted read-only into every run: the
//! sidecar, and the command lines of providers.
//!
//! One is filled by creating, never starting, a container of that image with the volume where the image has the
//! files: the engine copies them in then. That container's name is the lock between workers of one engine, and
//! its presence says that the copy may not be complete.

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
use protocol::{failure::FailureReason, spec::ProviderKind};
use tokio::time::Instant;

use super::{
    contents::{Contents, Fillers, short},
    engine::{Docker, status},
};
use crate::backend::answer::Failure;

/// How long another worker's copy is waited for.
const FILL_WITHIN: Duration = Duration::from_mins(2);

/// How long the container of a copy is left to whoever made it. The engine copies within the call that creates it
/// and tells of it only afterwards: what is older than this was left by a crash, and its copy is complete.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

enum Standing {
    Filled,
    Absent,
    /// Made by the engine for a container that named it just when somebody had removed it: empty.
    Stray,
}

impl Docker {
    /// The mounts of our own files that a run of `provider` needs; they are there and filled.
    pub(super) async fn shared_mounts(
        &self,
        provider: ProviderKind,
    ) -> Result<Vec<Mount>, Failure> {
        let sidecar = Contents::sidecar(&self.sidecar_image);
        let id = self.image(&sidecar.image, FailureReason::SidecarPrep, None).await?;
        let mut mounts = vec![sidecar.mounted(self.filled(&sidecar, &id).await?)];
        if let Some((harness, id)) = self.harness(provider).await? {
            mounts.push(harness.mounted(self.filled(&harness, &id).await?));
        }
        Ok(mounts)
    }

    /// The provider's command line, where this worker has an image of it. One that was named has to be there, by
    /// the policy for pulling; the usual name counts only if it is there already.
    async fn harness(&self, provider: ProviderKind) -> Result<Option<(Contents, String)>, Failure> {
        let Some(image) = self.harness_images.of(provider) else { return Ok(None) };
        let id = if image.is_named {
            let id = self.image(&image.name, FailureReason::SidecarPrep, None).await;
            // Whoever reads this never named that image: the worker's operator did.
            Some(id.map_err(|failure| {
                let of = provider.as_str();
                let text =
                    format!("harness image of {of}, named by the worker: {}", failure.message);
                Failure::new(failure.reason, text)
            })?)
        } else {
            self.image_id(&image.name, FailureReason::SidecarPrep).await?
        };
        Ok(id.map(|id| (Contents::harness(provider, &image.name), id)))
    }

    /// The volume's name; it is there and filled.
    async fn filled(&self, contents: &Contents, id: &str) -> Result<String, Failure> {
        let mut known = self.volumes.lock().await;
        let (volume, filler) = (contents.volume(id), format!("ozma-fill-{}", short(id)));
        let deadline = Instant::now() + FILL_WITHIN;
        let mut told_of = None;
        loop {
            let standing = self.standing(contents, &volume).await?;
            match standing {
                Standing::Filled if known.complete.contains(&volume) => return Ok(volume),
                Standing::Filled => {}
                Standing::Absent | Standing::Stray => {
                    known.complete.remove(&volume);
                }
            }
            if self.filling(contents, &filler).await? {
                if told_of.get_or_insert_with(Instant::now).elapsed() >= FINISH_WITHIN {
                    self.remove_filler(contents, &filler).await?;
                    told_of = None;
                }
            } else {
                told_of = None;
                let is_complete = match standing {
                    // The engine says nothing of a container while it still copies; its name is taken all the same.
                    Standing::Filled => self.hold_name(contents, &filler).await?,
                    Standing::Absent => self.fill(contents, &volume, &filler).await?,
                    Standing::Stray => {
                        self.remove_stray(contents, &volume, deadline).await?;
                        false
                    }
                };
                if is_complete {
                    known.complete.insert(volume.clone());
                    return Ok(volume);
                }
                if Instant::now() >= deadline {
                    let (what, secs) = (&contents.what, FILL_WITHIN.as_secs());
                    let text = format!("the volume of {what} was not filled after {secs} s");
                    return Err(Failure::new(FailureReason::SidecarPrep, text));
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes the volumes of earlier images that had the names of ours, unless a container uses them. Those of
    /// other names are other workers'.
    pub(in crate::backend) async fn remove_old_volumes(&self) -> anyhow::Result<()> {
        self.remove_old(&Contents::sidecar(&self.sidecar_image)).await?;
        for (provider, image) in self.harness_images.all() {
            self.remove_old(&Contents::harness(provider, &image.name)).await?;
        }
        Ok(())
    }

    async fn remove_old(&self, contents: &Contents) -> anyhow::Result<()> {
        let mut known = self.volumes.lock().await;
        self.remove_old_fillers(contents, &mut known.fillers).await?;
        let present = self.image_id(&contents.image, FailureReason::SidecarPrep).await?;
        // Without the image nobody knows which volume is old.
        let Some(present) = present.map(|id| contents.volume(&id)) else { return Ok(()) };
        let filters = HashMap::from([
            ("label".to_owned(), contents.filter()),
            ("dangling".to_owned(), vec!["true".to_owned()]),
        ]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_volumes(Some(options)).await;
        let found = found.with_context(|| format!("list the volumes of {}", contents.what))?;
        for volume in found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name) {
            if volume == present || !volume.starts_with(&contents.prefix) {
                continue;
            }
            match self.remove_volume(&volume).await {
                Ok(()) => tracing::info!("volume {volume} of an earlier image was removed"),
                // Used again since the listing.
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => return Err(error).with_context(|| format!("remove {volume}")),
            }
        }
        Ok(())
    }

    /// Removes what a crash left of a fill: a volume it names would never be unused.
    async fn remove_old_fillers(
        &self,
        contents: &Contents,
        seen: &mut Fillers,
    ) -> anyhow::Result<()> {
        let filters = HashMap::from([("label".to_owned(), contents.filter())]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client.list_containers(Some(options)).await;
        let found = found.with_context(|| format!("list what fills volumes: {}", contents.what))?;
        let found: HashSet<String> = found.into_iter().filter_map(|found| found.id).collect();
        seen.retain(|(image, id), _| *image != contents.image || found.contains(id));
        for id in found {
            let key = (contents.image.clone(), id.clone());
            if seen.entry(key).or_insert_with(Instant::now).elapsed() > FINISH_WITHIN {
                self.remove_filler(contents, &id).await?;
            }
        }
        Ok(())
    }

    async fn standing(&self, contents: &Contents, volume: &str) -> Result<Standing, Failure> {
        match self.client.inspect_volume(volume).await {
            Ok(found) if found.labels.contains_key(contents.label) => Ok(Standing::Filled),
            Ok(_) => Ok(Standing::Stray),
            Err(error) if status(&error) == Some(404) => Ok(Standing::Absent),
            Err(error) => Err(self.prep_failure(contents, "look for the volume", &error)),
        }
    }

    /// Waits, within bounds, for whoever still uses it.
    async fn remove_stray(
        &self,
        contents: &Contents,
        volume: &str,
        deadline: Instant,
    ) -> Result<(), Failure> {
        match self.remove_volume(volume).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(409) && Instant::now() < deadline => Ok(()),
            Err(error) => Err(self.prep_failure(contents, "remove an empty volume", &error)),
        }
    }

    pub(super) async fn remove_volume(&self, volume: &str) -> Result<(), bollard::errors::Error> {
        match self.client.remove_volume(volume, None::<RemoveVolumeOptions>).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            done => done,
        }
    }

    async fn filling(&self, contents: &Contents, filler: &str) -> Result<bool, Failure> {
        match self.client.inspect_container(filler, None).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.prep_failure(contents, "look for the volume", &error)),
        }
    }

    /// Creates the container that fills, with the volume or only for its name; false when somebody else has it.
    async fn create_filler(
        &self,
        contents: &Contents,
        filler: &str,
        mounts: Vec<Mount>,
    ) -> Result<bool, Failure> {
        let body = ContainerCreateBody {
            image: Some(contents.image.clone()),
            // Never run; an image without a command needs one to be created.
            entrypoint: Some(vec![contents.proof.clone()]),
            labels: Some(contents.labels()),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(filler).build();
        match self.client.create_container(Some(options), body).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(self.prep_failure(contents, "fill the volume", &error)),
        }
    }

    /// Whether nobody is filling a volume that is there.
    async fn hold_name(&self, contents: &Contents, filler: &str) -> Result<bool, Failure> {
        let held = self.create_filler(contents, filler, Vec::new()).await?;
        if held {
            self.remove_filler(contents, filler).await?;
        }
        Ok(held)
    }

    /// False when somebody else is at it.
    async fn fill(&self, contents: &Contents, volume: &str, filler: &str) -> Result<bool, Failure> {
        let mount = Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume.to_owned()),
            target: Some(contents.mount.clone()),
            volume_options: Some(MountVolumeOptions {
                labels: Some(contents.labels()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        if !self.create_filler(contents, filler, vec![mount]).await? {
            return Ok(false);
        }
        let found = self.holds_proof(contents, filler).await;
        self.remove_filler(contents, filler).await?;
        if let Err(failure) = found {
            // An empty volume would be taken for a filled one by the next run.
            let _ = self.remove_volume(volume).await;
            return Err(failure);
        }
        Ok(true)
    }

    async fn holds_proof(&self, contents: &Contents, filler: &str) -> Result<(), Failure> {
        let (image, proof) = (&contents.image, &contents.proof);
        let options = ContainerArchiveInfoOptionsBuilder::new().path(proof).build();
        match self.client.get_container_archive_info(filler, Some(options)).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Err(Failure::new(
                FailureReason::SidecarPrep,
                format!("image {image} has no {proof}; does it hold {}?", contents.what),
            )),
            Err(error) => Err(self.prep_failure(contents, "look into the image", &error)),
        }
    }

    async fn remove_filler(&self, contents: &Contents, filler: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.client.remove_container(filler, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(self.prep_failure(contents, "finish the volume", &error)),
        }
    }

    fn prep_failure(
        &self,
        contents: &Contents,
        doing: &str,
        error: &bollard::errors::Error,
    ) -> Failure {
        self.failure(FailureReason::SidecarPrep, &format!("{doing} of {}", contents.what), error)
    }
}
