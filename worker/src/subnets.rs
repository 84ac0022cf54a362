//! The private address range that the networks of runs are cut from. Pure.

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};

/// Size of one network: the gateway, the container, and room for what a later version puts beside it.
const PREFIX: u32 = 28;

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
    pub(crate) fn subnet(self, n: u32) -> String {
        let base = self.base + (n % self.count) * (1 << (32 - PREFIX));
        format!("{}/{PREFIX}", Ipv4Addr::from_bits(base))
    }
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
