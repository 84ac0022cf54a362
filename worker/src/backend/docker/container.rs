//! What an execution's container is made of: few capabilities, no new privileges, limits, no mounts of the host
//! but the sidecar's socket. Nothing secret stands in it; the assignment comes over the socket, or over standard
//! input where the engine is elsewhere.

use bollard::{
    models::{ContainerCreateBody, HealthConfig, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::CreateContainerOptionsBuilder,
};
use protocol::{
    failure::FailureReason,
    ids::ExecutionId,
    sidecar::{
        HARNESS_MOUNT, SESSION_MOUNT, SIDECAR_BINARY, SIDECAR_MOUNT, SOCKET_PATH, WORKSPACE,
    },
    spec::RunSpec,
};

use super::engine::{Docker, name};
use crate::{backend::answer::Failure, home::Home};

/// What set-up commands need to install packages as root, and the sidecar to drop to the agent's user
/// (`SETPCAP` empties the bounding set) and to end its processes.
const CAPABILITIES: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"];

/// Folder of the socket inside the container.
pub(super) const SOCKET_FOLDER: &str = "/run/ozma";

pub(super) fn socket_mount(home: &Home) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(home.sock().to_string_lossy().into_owned()),
        target: Some(SOCKET_FOLDER.to_owned()),
        // One can still connect to a socket there, but not replace it.
        read_only: Some(true),
        ..Mount::default()
    }
}

/// Which of our places the image has a file in, by what the runtime said when it could not mount there.
fn taken_place(cause: &str) -> Option<&'static str> {
    let is_at = |place: &&str| {
        cause.contains(&format!("at \"{place}\"")) || cause.contains(&format!("at \"{place}/"))
    };
    let places = [SOCKET_FOLDER, SIDECAR_MOUNT, HARNESS_MOUNT, SESSION_MOUNT, WORKSPACE];
    places.into_iter().find(is_at).filter(|_| cause.contains("not a directory"))
}

impl Docker {
    /// A volume that the image asks for, as the engine would make it by itself, but with our labels: one that
    /// outlives its container is known again.
    pub(super) fn anonymous_volume(&self, spec: &RunSpec, path: String) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            target: Some(path),
            volume_options: Some(MountVolumeOptions {
                labels: Some(self.labels(spec)),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }

    pub(super) fn container(
        &self,
        spec: &RunSpec,
        mounts: Vec<Mount>,
        network: String,
    ) -> ContainerCreateBody {
        let shape = self.shape(spec);
        let memory = shape.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let (mut cmd, mut env) = (vec!["supervise".to_owned()], Vec::new());
        if self.over_stdio {
            cmd.push("--stdio".to_owned());
        } else {
            env.push(format!("OZMA_SOCKET={SOCKET_PATH}"));
        }
        let host = HostConfig {
            mounts: Some(mounts),
            network_mode: Some(network),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            memory,
            // The same number: no swap beyond it.
            memory_swap: memory,
            nano_cpus: shape.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: shape.pids.map(i64::from),
            log_config: Some(self.log_driver.config()),
            runtime: self.runtime.clone(),
            ipc_mode: Some("private".to_owned()),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(spec.image.clone()),
            // Given, so that the image's own does not run.
            entrypoint: Some(vec![SIDECAR_BINARY.to_owned()]),
            cmd: Some(cmd),
            open_stdin: Some(self.over_stdio),
            attach_stdin: Some(self.over_stdio),
            attach_stdout: Some(self.over_stdio),
            // A worker that lets go may come back: standard input does not end with it.
            stdin_once: Some(false),
            tty: Some(false),
            // By number: the image may know no users, or name another one.
            user: Some("0:0".to_owned()),
            env: Some(env),
            labels: Some(self.labels(spec)),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }

    pub(super) async fn create_container(
        &self,
        id: &ExecutionId,
        body: ContainerCreateBody,
    ) -> Result<(), Failure> {
        let options = CreateContainerOptionsBuilder::new().name(&name(id)).build();
        let created = self.client.create_container(Some(options), body).await;
        created.map(|_| ()).map_err(|error| {
            self.failure(FailureReason::ContainerCreate, "create the container", &error)
        })
    }

    pub(in crate::backend) async fn start_container(
        &self,
        id: &ExecutionId,
    ) -> Result<(), Failure> {
        let started = self.client.start_container(&name(id), None).await;
        started.map_err(|error| {
            if let Some(place) = taken_place(&error.to_string()) {
                // The image's own doing, and so each time.
                return Failure::new(
                    FailureReason::AgentInvocation,
                    format!("the image cannot be used: {place} or what it is in is a file there, and has to be a folder"),
                );
            }
            self.failure(FailureReason::ContainerStart, "start the container", &error)
        })
    }
}
