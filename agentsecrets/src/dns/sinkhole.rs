//! Addresses that stand for names which no rule allows, so that a client connects to us and is told
//! why, and no query leaves. They are nobody's: the guard never dials them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::resolver::Family;
use crate::upstream::ssrf_guard::SYNTHETIC_V6;

/// How many names are known at once. 198.18.0.0/15 has room for more; memory need not.
const NAMES: u32 = 16 * 1024;
/// The network address of 198.18.0.0/15.
const FIRST_V4: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// Which name has which address: always the same, and never one of another name.
#[derive(Default)]
pub(super) struct Synthetic {
    numbers: Mutex<HashMap<Arc<str>, u32>>,
}

impl Synthetic {
    /// The address of `name`, in lower case, or nothing if too many names were asked for.
    pub(super) fn address(&self, name: &str, family: Family) -> Option<IpAddr> {
        let number = self.number(name)?;
        Some(match family {
            Family::V4 => Ipv4Addr::from_bits(FIRST_V4 + number).into(),
            Family::V6 => {
                let [a, b, c] = SYNTHETIC_V6;
                let [_, _, high, low] = number.to_be_bytes();
                let last = u16::from_be_bytes([high, low]);
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last).into()
            }
        })
    }

    /// From 1, as the first address of a network is special.
    fn number(&self, name: &str) -> Option<u32> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(name) {
            return Some(*number);
        }
        let next = u32::try_from(numbers.len()).ok()? + 1;
        if next > NAMES {
            return None;
        }
        numbers.insert(name.into(), next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::grant::PrivateAddresses;
    use crate::upstream::ssrf_guard::{Refused, check};

    #[test]
    fn every_name_has_an_address_of_its_own_which_is_never_dialled_until_there_are_too_many() {
        let synthetic = Synthetic::default();
        let mut seen = HashSet::new();
        for n in 0..NAMES {
            for family in [Family::V4, Family::V6] {
                let ip = synthetic.address(&format!("{n}.test"), family).unwrap();
                assert!(seen.insert(ip));
                let verdict = check(ip, &PrivateAddresses::Any, &[], 443);
                assert_eq!(verdict, Err(Refused::Never), "{ip}");
            }
        }
        assert_eq!(synthetic.address("more.test", Family::V4), None);
        let again = synthetic.address("0.test", Family::V4).unwrap();
        assert_eq!(again, IpAddr::from([198, 18, 0, 1]));
    }
}
