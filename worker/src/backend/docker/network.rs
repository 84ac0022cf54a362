//! A private bridge network for each run that may reach out: the internet, but no other run. Subnets are given
//! explicitly, because an engine's own pool is used up after some thirty networks.

use std::{collections::HashMap, net::Ipv4Addr};

use anyhow::{Context, ensure};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use protocol::{
    failure::FailureReason,
    ids::ExecutionId,
    spec::{Network, RunSpec},
};

use super::{Docker, Failure, failure, name, status};

/// Size of one network: the gateway, the container, and room for what a later version puts beside it.
const PREFIX: u32 = 28;

/// Subnets tried before a run fails for want of a free one.
const TRIES: u32 = 32;

/// The range that networks are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    base: u32,
    /// Networks that fit.
    count: u32,
}

/// Reads `a.b.c.d/n`.
///
/// # Errors
/// It is no private range that holds at least one network.
pub(crate) fn pool(text: &str) -> anyhow::Result<Pool> {
    let (address, prefix) = text.split_once('/').context("must be written a.b.c.d/n")?;
    let address: Ipv4Addr = address.parse().context("must begin with an IPv4 address")?;
    let prefix: u32 = prefix.parse().context("must end with the length of a prefix")?;
    ensure!((8..=PREFIX).contains(&prefix), "the prefix must be 8 to {PREFIX} bits");
    ensure!(address.is_private(), "must be a private range");
    let base = address.to_bits() & (u32::MAX << (32 - prefix));
    Ok(Pool { base, count: 1 << (PREFIX - prefix) })
}

impl Pool {
    /// The `n`th network, from the beginning again after the last.
    fn subnet(self, n: u32) -> String {
        let base = self.base + (n % self.count) * (1 << (32 - PREFIX));
        format!("{}/{PREFIX}", Ipv4Addr::from_bits(base))
    }
}

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
                Err(error) => return Err(create_failure(&error)),
            }
        }
        Err(match refused {
            Some(error) => create_failure(&error),
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
            Err(error) => Err(failure(FailureReason::Unknown, "remove the network", &error)),
        }
    }
}

fn create_failure(error: &bollard::errors::Error) -> Failure {
    failure(FailureReason::ContainerCreate, "create the run's network", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_go_round_in_their_range() {
        let range = pool("10.213.7.9/24").unwrap();
        assert_eq!(range.count, 16);
        assert_eq!(range.subnet(0), "10.213.7.0/28");
        assert_eq!(range.subnet(15), "10.213.7.240/28");
        assert_eq!(range.subnet(16), "10.213.7.0/28");
        assert_eq!(pool("192.168.5.0/28").unwrap().count, 1);
    }

    #[test]
    fn what_is_no_private_range_is_refused() {
        for bad in ["10.0.0.0", "10.0.0.0/29", "8.8.8.0/24", "x/24", "10.0.0.0/x"] {
            assert!(pool(bad).is_err(), "{bad} was taken");
        }
    }
}
