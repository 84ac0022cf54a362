//! What the volumes with files of ours hold, by which names and labels they are known, and what a worker remembers of
//! them.

use std::collections::{HashMap, HashSet};

use bollard::models::{Mount, MountType, MountVolumeOptions};
use protocol::{
    sidecar::{HARNESS_MOUNT, SIDECAR_BINARY, SIDECAR_MOUNT},
    spec::ProviderKind,
};
use tokio::time::Instant;

/// Containers that fill volumes, by image and id, with when each was first seen by whoever tidies up.
pub(super) type Fillers = HashMap<(String, String), Instant>;

/// What this worker knows of such volumes.
#[derive(Default)]
pub(super) struct Known {
    pub(super) fillers: Fillers,
    /// Volumes that nobody was filling any more when they were looked at.
    pub(super) complete: HashSet<String>,
}

/// What such a volume holds.
pub(super) struct Contents {
    /// For people.
    pub(super) what: String,
    pub(super) image: String,
    /// Where the image has the files, and where they are mounted.
    pub(super) mount: String,
    /// A file that has to be among them.
    pub(super) proof: String,
    /// On every volume that was filled here, from the moment it exists; its value is the image's name.
    pub(super) label: &'static str,
    /// What the volumes' names begin with.
    pub(super) prefix: String,
}

impl Contents {
    pub(super) fn sidecar(image: &str) -> Self {
        Self {
            what: "the sidecar".to_owned(),
            image: image.to_owned(),
            mount: SIDECAR_MOUNT.to_owned(),
            proof: SIDECAR_BINARY.to_owned(),
            label: "ozma.sidecar",
            prefix: "ozma-sidecar-".to_owned(),
        }
    }

    pub(super) fn harness(provider: ProviderKind, image: &str) -> Self {
        let name = provider.as_str();
        Self {
            what: format!("the command line of {name}"),
            image: image.to_owned(),
            mount: format!("{HARNESS_MOUNT}/{name}"),
            proof: format!("{HARNESS_MOUNT}/{name}/bin/{name}"),
            label: "ozma.harness-image",
            prefix: format!("ozma-harness-{name}-"),
        }
    }

    pub(super) fn volume(&self, image_id: &str) -> String {
        format!("{}{}", self.prefix, short(image_id))
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(self.label.to_owned(), self.image.clone())])
    }

    pub(super) fn filter(&self) -> Vec<String> {
        vec![format!("{}={}", self.label, self.image)]
    }

    /// A mount into a run.
    pub(super) fn mounted(&self, volume: String) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume),
            target: Some(self.mount.clone()),
            read_only: Some(true),
            // Nothing of the task image may get into the shared volume.
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }
}

/// An image's id as far as names need it.
pub(super) fn short(image_id: &str) -> &str {
    let id = image_id.trim_start_matches("sha256:");
    id.get(..12).unwrap_or(id)
}
