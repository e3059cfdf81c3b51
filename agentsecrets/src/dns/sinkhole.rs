//! Sinkhole addresses: each name that no rule allows resolves to an address of its own from a reserved range, so
//! that the client connects to us and reads why it is refused, and no query leaves. `upstream` never dials these
//! ranges.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use super::resolver::Family;
use crate::types::sync::MutexExt;

/// The number of names that have an address at once. 198.18.0.0/15 has room for more; memory need not.
const MAX_NAMES: u32 = 16 * 1024;
/// The network address of 198.18.0.0/15, the benchmarking range.
const V4_NETWORK: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// The first 48 bits of the IPv6 addresses.
const V6_PREFIX: [u16; 3] = [0xfd61, 0x6765, 0x6e74];

/// Whether `ip` is in one of the reserved ranges.
pub(crate) fn contains(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> 17 == V4_NETWORK >> 17,
        IpAddr::V6(ip) => ip.segments().starts_with(&V6_PREFIX),
    }
}

/// The addresses given out so far: always the same one for a name, and never one of another name.
#[derive(Default)]
pub(super) struct Sinkhole {
    indices: Mutex<HashMap<Arc<str>, u32>>,
}

impl Sinkhole {
    /// The address of `name`, in lower case, or `None` once too many names were queried.
    pub(super) fn address(&self, name: &str, family: Family) -> Option<IpAddr> {
        let index = self.index(name)?;
        Some(match family {
            Family::V4 => Ipv4Addr::from_bits(V4_NETWORK + index).into(),
            Family::V6 => {
                let [a, b, c] = V6_PREFIX;
                let [_, _, high, low] = index.to_be_bytes();
                let last = u16::from_be_bytes([high, low]);
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last).into()
            }
        })
    }

    /// Starts at 1, because the first address of a network is special.
    fn index(&self, name: &str) -> Option<u32> {
        let mut indices = self.indices.lock_ignoring_poison();
        if let Some(index) = indices.get(name) {
            return Some(*index);
        }
        let next = u32::try_from(indices.len()).ok()? + 1;
        if next > MAX_NAMES {
            return None;
        }
        indices.insert(name.into(), next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_name_has_its_own_address_up_to_the_limit() {
        let sinkhole = Sinkhole::default();
        let mut seen = HashSet::new();
        for n in 0..MAX_NAMES {
            for family in [Family::V4, Family::V6] {
                let ip = sinkhole.address(&format!("{n}.test"), family).unwrap();
                assert!(seen.insert(ip));
                assert!(contains(ip), "{ip}");
            }
        }
        assert_eq!(sinkhole.address("more.test", Family::V4), None);
        let again = sinkhole.address("0.test", Family::V4).unwrap();
        assert_eq!(again, IpAddr::from([198, 18, 0, 1]));
    }

    #[test]
    fn neighbouring_networks_are_outside() {
        for ip in ["198.17.255.255", "198.20.0.0", "fd61:6765:6e75::1"] {
            assert!(!contains(ip.parse().unwrap()), "{ip}");
        }
    }
}
