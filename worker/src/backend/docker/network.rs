//! A private bridge network for each run that may reach out: the internet, but no other run. Subnets are given
//! explicitly, because an engine's own pool is used up after some thirty networks.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use protocol::{
    failure::FailureReason,
    ids::ExecutionId,
    spec::{Network, RunSpec},
};

use super::engine::{Docker, name, status};
use crate::backend::answer::Failure;

/// Subnets tried before a run fails for want of a free one.
const TRIES: u32 = 32;

impl Docker {
    /// Makes what the run may reach; the answer is the container's network mode.
    pub(super) async fn create_network(&self, spec: &RunSpec) -> Result<String, Failure> {
        match spec.network {
            Network::None => return Ok("none".to_owned()),
            Network::Open => {}
        }
        let name = name(&spec.execution_id);
        // At random, so that workers that know nothing of each other seldom meet.
        let first = getrandom::u32().unwrap_or_default();
        let mut refused = None;
        for n in 0..TRIES {
            let subnet = self.pool.subnet(first.wrapping_add(n));
            match self.client.create_network(self.request(spec, &name, subnet)).await {
                Ok(_) => return Ok(name),
                Err(error) if error.to_string().contains("overlap") => refused = Some(error),
                Err(error) => return Err(self.create_failure(&error)),
            }
        }
        Err(match refused {
            Some(error) => self.create_failure(&error),
            None => Failure::new(FailureReason::ContainerCreate, "no subnet was tried"),
        })
    }

    fn request(&self, spec: &RunSpec, name: &str, subnet: String) -> NetworkCreateRequest {
        NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            options: Some(HashMap::from([(
                "com.docker.network.bridge.enable_icc".to_owned(),
                "false".to_owned(),
            )])),
            labels: Some(self.labels(spec)),
            ..NetworkCreateRequest::default()
        }
    }

    pub(super) async fn remove_network(&self, id: &ExecutionId) -> Result<(), Failure> {
        match self.client.remove_network(&name(id)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.failure(FailureReason::Unknown, "remove the network", &error)),
        }
    }

    fn create_failure(&self, error: &bollard::errors::Error) -> Failure {
        self.failure(FailureReason::ContainerCreate, "create the run's network", error)
    }
}
