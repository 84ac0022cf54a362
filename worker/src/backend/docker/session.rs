//! What a conversation keeps between its runs: a volume for the workspace and one for the provider's own session
//! files, by name and labels. One that is another tenant's or another worker's is nobody's here.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Context;
use bollard::{
    models::{Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder},
};
use protocol::{
    failure::FailureReason,
    ids::{RunId, TenantId},
    sidecar::{SESSION_MOUNT, WORKSPACE},
    spec::{RunSpec, SessionSpec},
};

use super::engine::{Docker, LABEL_TENANT, LABEL_WORKER, status};
use crate::backend::answer::{Failure, session_gone};

const LABEL_CONVERSATION: &str = "ozma.conversation";

/// The volumes' names begin so, where each is mounted, and whether a new one takes what the image has there.
const VOLUMES: [(&str, &str, bool); 2] =
    [("ozma-workspace-", WORKSPACE, true), ("ozma-session-", SESSION_MOUNT, false)];

fn names(conversation: &RunId) -> [String; 2] {
    VOLUMES.map(|(prefix, ..)| format!("{prefix}{conversation}"))
}

impl Docker {
    /// Has the volumes of the run's conversation: those that are there for one that goes on, new ones for one that
    /// begins. False while a container uses them still, of an attempt before this one: two would write into them.
    pub(in crate::backend) async fn session(
        &self,
        spec: &RunSpec,
        session: &SessionSpec,
    ) -> Result<bool, Failure> {
        let labels = self.session_labels(&spec.tenant_id, &session.conversation_id);
        for name in names(&session.conversation_id) {
            let found = self.session_volume(&name).await?;
            let is_its_own = found.as_ref().is_some_and(|found| {
                labels.iter().all(|(label, value)| found.get(label) == Some(value))
            });
            match found {
                _ if session.resume && is_its_own => {
                    if self.is_used(&name).await? {
                        return Ok(false);
                    }
                }
                _ if session.resume => return Err(session_gone(&self.worker_id, session)),
                Some(_) if !is_its_own => {
                    return Err(Failure::new(
                        FailureReason::WorkspaceSetup,
                        format!("the volume {name} is there already and not this conversation's"),
                    ));
                }
                found => {
                    if found.is_some() && !self.remove_unused(&name).await? {
                        return Ok(false);
                    }
                    self.create_volume(&name, labels.clone()).await?;
                }
            }
        }
        Ok(true)
    }

    pub(super) fn session_mounts(&self, spec: &RunSpec) -> Vec<Mount> {
        let Some(session) = &spec.session else { return Vec::new() };
        let labels = self.session_labels(&spec.tenant_id, &session.conversation_id);
        let mount = |(prefix, target, takes): &(&str, &str, bool)| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(format!("{prefix}{}", session.conversation_id)),
            target: Some((*target).to_owned()),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(!takes),
                labels: Some(labels.clone()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        VOLUMES.iter().map(mount).collect()
    }

    fn session_labels(&self, tenant: &TenantId, conversation: &RunId) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_WORKER.to_owned(), self.worker_id.clone()),
            (LABEL_TENANT.to_owned(), tenant.to_string()),
            (LABEL_CONVERSATION.to_owned(), conversation.to_string()),
        ])
    }

    /// The labels of a volume, if it is there.
    async fn session_volume(&self, name: &str) -> Result<Option<HashMap<String, String>>, Failure> {
        match self.client.inspect_volume(name).await {
            Ok(found) => Ok(Some(found.labels)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.session_failure("look for the conversation's volumes", &error)),
        }
    }

    async fn create_volume(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), Failure> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let made = self.client.create_volume(request).await;
        made.map(|_| ())
            .map_err(|error| self.session_failure("make the conversation's volumes", &error))
    }

    async fn remove_unused(&self, name: &str) -> Result<bool, Failure> {
        match self.remove_volume(name).await {
            Ok(()) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(self.session_failure("remove what an earlier attempt left", &error)),
        }
    }

    /// Whether a container writes into the volume, or may begin to.
    async fn is_used(&self, name: &str) -> Result<bool, Failure> {
        let states = ["created", "running", "paused", "restarting"].map(str::to_owned);
        let filters = HashMap::from([
            ("volume".to_owned(), vec![name.to_owned()]),
            ("status".to_owned(), states.to_vec()),
        ]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client.list_containers(Some(options)).await;
        let found =
            found.map_err(|error| self.session_failure("look who uses the volumes", &error))?;
        Ok(!found.is_empty())
    }

    /// Where the volumes of this worker's conversations are on the engine's machine.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(in crate::backend) async fn session_volumes(
        &self,
    ) -> anyhow::Result<Vec<(RunId, PathBuf)>> {
        let mut filters = self.ours();
        filters.entry("label".to_owned()).or_default().push(LABEL_CONVERSATION.to_owned());
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.client.list_volumes(Some(options)).await;
        let found = found.context("list the volumes of conversations")?.volumes.unwrap_or_default();
        let conversation = |volume: bollard::models::Volume| {
            let id: RunId = volume.labels.get(LABEL_CONVERSATION)?.parse().ok()?;
            names(&id).contains(&volume.name).then(|| (id, volume.mountpoint.into()))
        };
        Ok(found.into_iter().filter_map(conversation).collect())
    }

    /// Removes what is kept of a conversation; false when a container uses it still.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(in crate::backend) async fn remove_session(
        &self,
        conversation: &RunId,
    ) -> anyhow::Result<bool> {
        for name in names(conversation) {
            match self.remove_volume(&name).await {
                Ok(()) => {}
                Err(error) if status(&error) == Some(409) => return Ok(false),
                Err(error) => return Err(error).with_context(|| format!("remove {name}")),
            }
        }
        Ok(true)
    }

    fn session_failure(&self, doing: &str, error: &bollard::errors::Error) -> Failure {
        self.failure(FailureReason::WorkspaceSetup, doing, error)
    }
}
