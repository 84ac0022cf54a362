//! Having an image: there already, or pulled, by policy; and letting one go for room. A pull's progress becomes
//! events, about one a second.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{CreateImageInfo, Mount},
    query_parameters::{
        CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveImageOptions,
    },
};
use futures_util::StreamExt;
use protocol::{event::Event, failure::FailureReason};
use tokio::time::Instant;

use super::{
    container::SOCKET_FOLDER,
    engine::{Docker, status},
};
use crate::{backend::answer::Failure, config::PullPolicy, held::Held};

/// Between two progress events of one run.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Layers followed in one pull; an image with more shows the progress of these.
const MAX_LAYERS: usize = 256;

/// What engines pass on of a registry that answered: it has no such image, or does not give it to us.
const ANSWERS: [&str; 6] = [
    "manifest unknown",
    "manifest for",
    "not found",
    "repository does not exist",
    "access denied",
    "unauthorized",
];

impl Docker {
    /// The id of `image`, pulled if the policy says so; fails for `reason`. Progress goes to `held`.
    pub(super) async fn image(
        &self,
        image: &str,
        reason: FailureReason,
        held: Option<&Held>,
    ) -> Result<String, Failure> {
        let present = self.image_id(image, reason).await?;
        // A sidecar image is made beside the worker as often as it is pulled: never pulled twice.
        let always = self.pull_policy == PullPolicy::Always && reason == FailureReason::ImagePull;
        match present.clone() {
            Some(id) if !always => return Ok(id),
            None if self.pull_policy == PullPolicy::Never => {
                let message = format!("image {image} is not present and pull_policy is \"never\"");
                return Err(Failure::new(reason, message));
            }
            _ => self.pull(image, reason, held).await?,
        }
        let id = self.image_id(image, reason).await?.ok_or_else(|| {
            Failure::new(reason, format!("image {image} was pulled and is not there"))
        })?;
        if present.as_deref() != Some(id.as_str()) && reason == FailureReason::ImagePull {
            self.pulled.note(image, &id);
        }
        Ok(id)
    }

    pub(super) async fn image_id(
        &self,
        image: &str,
        reason: FailureReason,
    ) -> Result<Option<String>, Failure> {
        match self.client.inspect_image(image).await {
            Ok(image) => Ok(image.id),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.failure(reason, &format!("look for image {image}"), &error)),
        }
    }

    /// Tells an image that is not to be had from a registry that is not.
    fn pull_failure(
        &self,
        image: &str,
        reason: FailureReason,
        error: &bollard::errors::Error,
    ) -> Failure {
        let failure = self.failure(reason, &format!("pull image {image}"), error);
        if !self.gate.is_engine_there() {
            return failure;
        }
        let said = failure.message.to_lowercase();
        let has_answered = status(error) == Some(404) || ANSWERS.iter().any(|no| said.contains(no));
        let whose = if has_answered {
            "the registry has no such image, or not for this worker; is its name right?"
        } else {
            "its registry could not be reached, or failed"
        };
        Failure::new(reason, format!("{} ({whose})", failure.message))
    }

    /// Where the image wants volumes, the places that are `taken` left out.
    pub(super) async fn image_volumes(
        &self,
        image: &str,
        taken: &[Mount],
    ) -> Result<Vec<String>, Failure> {
        let found = self.client.inspect_image(image).await.map_err(|error| {
            self.failure(FailureReason::ContainerCreate, &format!("look at image {image}"), &error)
        })?;
        let volumes = found.config.and_then(|config| config.volumes).unwrap_or_default();
        let is_taken = |path: &str| {
            let path = path.trim_end_matches('/');
            path == SOCKET_FOLDER || taken.iter().any(|mount| mount.target.as_deref() == Some(path))
        };
        Ok(volumes.into_iter().filter(|path| !is_taken(path)).collect())
    }

    async fn pull(
        &self,
        image: &str,
        reason: FailureReason,
        held: Option<&Held>,
    ) -> Result<(), Failure> {
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let mut progress = Progress::default();
        let mut said = None;
        let mut pull = std::pin::pin!(self.client.create_image(Some(options), None, None));
        while let Some(step) = pull.next().await {
            let step = step.map_err(|error| self.pull_failure(image, reason, &error))?;
            progress.take(step);
            let due = said.is_none_or(|said: Instant| said.elapsed() >= SAY_EVERY);
            if let (Some(held), true) = (held, due) {
                said = Some(Instant::now());
                held.say(&progress.event(image));
            }
        }
        Ok(())
    }

    /// Removes the image that was unused for longest; its name, or `None` when there is none to remove.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(in crate::backend) async fn remove_an_image(&self) -> anyhow::Result<Option<String>> {
        for image in self.pulled.unused() {
            let found = match self.client.inspect_image(&image.name).await {
                Ok(found) => found.id,
                Err(error) if status(&error) == Some(404) => None,
                Err(error) => return Err(error.into()),
            };
            if found.as_deref() != Some(&image.id) {
                // Somebody removed it, or it is another one by now, and theirs.
                self.pulled.forget(&image);
                continue;
            }
            if self.has_container(&image.id).await? {
                // By one of several names the engine would let it go.
                continue;
            }
            match self.client.remove_image(&image.name, None::<RemoveImageOptions>, None).await {
                Ok(_) => {
                    self.pulled.forget(&image);
                    return Ok(Some(image.name));
                }
                // A container uses it.
                Err(error) if matches!(status(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn has_container(&self, image_id: &str) -> anyhow::Result<bool> {
        let filters = HashMap::from([("ancestor".to_owned(), vec![image_id.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        Ok(!self.client.list_containers(Some(options)).await?.is_empty())
    }
}

/// Without a tag the engine would pull every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Where a pull stands, over all its layers.
#[derive(Default)]
struct Progress {
    status: String,
    layers: HashMap<String, (u64, u64)>,
}

impl Progress {
    fn take(&mut self, step: CreateImageInfo) {
        if let Some(status) = step.status {
            self.status = status;
        }
        let bytes = step.progress_detail.and_then(|detail| Some((detail.current?, detail.total?)));
        if let (Some(layer), Some((current, total))) = (step.id, bytes)
            && self.status == "Downloading"
            && (self.layers.len() < MAX_LAYERS || self.layers.contains_key(&layer))
        {
            let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
            self.layers.insert(layer, (bytes(current), bytes(total)));
        }
    }

    fn event(&self, image: &str) -> Event {
        let known = !self.layers.is_empty();
        let (current, total) = self.layers.values().fold((0_u64, 0_u64), |sum, layer| {
            (sum.0.saturating_add(layer.0), sum.1.saturating_add(layer.1))
        });
        Event::ImageProgress {
            image: image.to_owned(),
            status: self.status.clone(),
            current_bytes: known.then_some(current),
            total_bytes: known.then_some(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_added_where_there_is_none() {
        for (image, pulled) in [
            ("debian", "debian:latest"),
            ("host:5000/debian", "host:5000/debian:latest"),
            ("host:5000/debian:12", "host:5000/debian:12"),
            ("debian@sha256:0", "debian@sha256:0"),
        ] {
            assert_eq!(with_tag(image), pulled);
        }
    }
}
