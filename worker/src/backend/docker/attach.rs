//! A container's standard input and output through the engine: the way to a sidecar where no folder is shared.
//! The engine holds about a megabyte of output that nobody reads here, then the container waits.

use std::time::Duration;

use anyhow::Context;
use bollard::{container::LogOutput, query_parameters::AttachContainerOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use protocol::ids::ExecutionId;
use tokio_util::io::StreamReader;

use super::engine::{Docker, name};
use crate::backend::answer::Attached;

/// For the engine to answer.
const ATTACH_WITHIN: Duration = Duration::from_secs(20);

/// Attaches to one container, as often as it takes.
pub(crate) struct Attach {
    client: bollard::Docker,
    name: String,
}

impl Docker {
    pub(in crate::backend) fn attach(&self, id: &ExecutionId) -> Attach {
        Attach { client: self.client.clone(), name: name(id) }
    }
}

impl Attach {
    /// # Errors
    /// The engine does not answer, or has no such container.
    pub(crate) async fn attach(&self) -> anyhow::Result<Attached> {
        // What the sidecar says to people is on its standard error, and not for us.
        let options =
            AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).build();
        let attached = self.client.attach_container(&self.name, Some(options));
        let attached = tokio::time::timeout(ATTACH_WITHIN, attached)
            .await
            .context("the engine does not answer")?
            .context("attach to the container")?;
        let output = attached.output.map_err(std::io::Error::other);
        let output = output.try_filter_map(async |part| match part {
            LogOutput::StdOut { message } => Ok(Some(message)),
            _ => Ok(None),
        });
        Ok(Attached { output: Box::new(StreamReader::new(output.boxed())), input: attached.input })
    }
}
