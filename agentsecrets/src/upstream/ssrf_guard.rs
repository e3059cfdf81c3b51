//! Decides which addresses may be dialled. A name that somebody else controls can resolve to our own listeners, to a
//! cloud's metadata service, to the router. Public addresses pass; private ones pass where the rule allows them;
//! some never pass. An address that embeds an IPv4 address is judged as that address too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::dns::sinkhole;
use crate::policy::private_addresses::PrivateAddresses;

/// Why an address must not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockedAddress {
    /// No rule can allow it: metadata services, link-local, multicast, sinkhole addresses.
    #[error("an address that is never dialled")]
    Never,
    /// One of our own listeners.
    #[error("an address of the interceptor itself")]
    OwnListener,
    /// Not public, and the rule allows no private addresses.
    #[error("a private address, which no rule allows")]
    NotPublic,
}

/// Checks whether `ip` may be dialled on `port`. `own_listeners` may be of any protocol.
pub(super) fn check_address(
    ip: IpAddr,
    private: &PrivateAddresses,
    own_listeners: &[SocketAddr],
    port: u16,
) -> Result<(), BlockedAddress> {
    let ip = ip.to_canonical();
    let scope = scope(ip);
    if scope == AddressScope::Never {
        return Err(BlockedAddress::Never);
    }
    // A listener on the unspecified address is on every address of this machine.
    let is_own = |listener: &SocketAddr| {
        let own = listener.ip().to_canonical();
        let everywhere = own.is_unspecified() && scope == AddressScope::Private;
        listener.port() == port && (own == ip || everywhere || embedded_v4(ip).contains(&Some(own)))
    };
    if own_listeners.iter().any(is_own) {
        return Err(BlockedAddress::OwnListener);
    }
    match private {
        _ if scope == AddressScope::Public => Ok(()),
        PrivateAddresses::Any => Ok(()),
        PrivateAddresses::Within(nets) if nets.iter().any(|net| net.contains(&ip)) => Ok(()),
        PrivateAddresses::Within(_) | PrivateAddresses::None => Err(BlockedAddress::NotPublic),
    }
}

/// The scope of an address, in ascending order of danger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AddressScope {
    Public,
    Private,
    Never,
}

fn scope(ip: IpAddr) -> AddressScope {
    match ip {
        ip if sinkhole::contains(ip) => AddressScope::Never,
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> AddressScope {
    match ip.octets() {
        // Metadata and credential services: EC2 and most clouds, ECS and EKS lie within link-local.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => AddressScope::Never,
        // "This network", of which 0.0.0.0 means the machine itself on Linux.
        [0, 0, 0, 0] | [255, 255, 255, 255] => AddressScope::Never,
        // Link-local and multicast.
        [169, 254, ..] | [224..=239, ..] => AddressScope::Never,
        // This network, loopback, private, shared (CGNAT).
        [0 | 10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => {
            AddressScope::Private
        }
        // Protocol assignments, documentation, relays, reserved.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressScope::Private,
        [240..=255, ..] => AddressScope::Private,
        _ => AddressScope::Public,
    }
}

fn scope_v6(ip: Ipv6Addr) -> AddressScope {
    let own = match ip.segments() {
        // Metadata services of EC2 and Google's cloud.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] => AddressScope::Never,
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => AddressScope::Never,
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressScope::Never,
        // Link-local and multicast.
        [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => AddressScope::Never,
        // Translation to IPv4: the embedded address decides.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x2002, ..] => AddressScope::Public,
        // Protocol assignments with Teredo, documentation, and all that is no global unicast.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressScope::Private,
        [0x2000..=0x3fff, ..] => AddressScope::Public,
        _ => AddressScope::Private,
    };
    let carried = embedded_v4(IpAddr::V6(ip)).into_iter().flatten().map(scope).max();
    own.max(carried.unwrap_or(AddressScope::Public))
}

/// The IPv4 addresses to which `ip` may lead.
fn embedded_v4(ip: IpAddr) -> [Option<IpAddr>; 4] {
    let IpAddr::V6(ip) = ip else { return [None; 4] };
    let o = ip.octets();
    let v4 = |a: u8, b: u8, c: u8, d: u8| Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let last = v4(o[12], o[13], o[14], o[15]);
    match ip.segments() {
        // Loopback is not an IPv4-compatible address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        // Compatible, mapped and translated forms, and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [last, None, None, None],
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [last, None, None, None],
        // A network's own NAT64 prefix: its length, and thus the position of the address, is unknown. A position
        // that holds zeros is padding.
        [0x64, 0xff9b, 1, ..] => [
            last,
            v4(o[6], o[7], o[9], o[10]).filter(|_| o[6] != 0),
            v4(o[7], o[9], o[10], o[11]).filter(|_| o[7] != 0),
            v4(o[9], o[10], o[11], o[12]).filter(|_| o[9] != 0),
        ],
        [0x2002, ..] => [v4(o[2], o[3], o[4], o[5]), None, None, None],
        // Teredo: the server in the clear, the client inverted.
        [0x2001, 0, ..] => [v4(o[4], o[5], o[6], o[7]), v4(!o[12], !o[13], !o[14], !o[15]), None, None],
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(ip: &str, private: &PrivateAddresses) -> Result<(), BlockedAddress> {
        check_address(ip.parse().unwrap(), private, &[], 443)
    }

    #[test]
    fn public_address_passes() {
        for ip in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "172.32.0.1"] {
            assert_eq!(judge(ip, &PrivateAddresses::None), Ok(()), "{ip}");
        }
    }

    #[test]
    fn private_address_needs_rule() {
        for ip in [
            "127.0.0.1",
            "127.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "0.1.2.3",
            "240.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "192.0.0.1",
            "192.88.99.1",
            "::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "64:ff9b:1::101:101",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001:0:101:101::fefe:fefe",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:0:10.0.0.1",
            "5f00::1",
            "4000::1",
        ] {
            assert_eq!(judge(ip, &PrivateAddresses::None), Err(BlockedAddress::NotPublic), "{ip}");
            assert_eq!(judge(ip, &PrivateAddresses::Any), Ok(()), "{ip}");
        }
    }

    #[test]
    fn metadata_and_link_local_addresses_are_blocked() {
        for ip in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.1.1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fe80::1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "ff02::1",
            "198.18.0.1",
            "198.19.255.255",
            "fd61:6765:6e74::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::",
            "2001::5601:5601",
            "::ffff:0:169.254.169.254",
        ] {
            let all: PrivateAddresses =
                PrivateAddresses::Within(["0.0.0.0/0", "::/0"].map(|n| n.parse().unwrap()).into());
            assert_eq!(judge(ip, &PrivateAddresses::Any), Err(BlockedAddress::Never), "{ip}");
            assert_eq!(judge(ip, &all), Err(BlockedAddress::Never), "{ip}");
        }
    }

    #[test]
    fn rule_limits_private_networks() {
        let within = PrivateAddresses::Within(["10.1.0.0/16".parse().unwrap()].into());
        assert_eq!(judge("10.1.2.3", &within), Ok(()));
        assert_eq!(judge("::ffff:10.1.2.3", &within), Ok(()));
        assert_eq!(judge("10.2.2.3", &within), Err(BlockedAddress::NotPublic));
        assert_eq!(judge("127.0.0.1", &within), Err(BlockedAddress::NotPublic));
        assert_eq!(judge("8.8.8.8", &within), Ok(()));
    }

    #[test]
    fn own_listener_is_blocked() {
        let own = ["127.0.0.1:8443", "[::]:53"].map(|a| a.parse().unwrap());
        let dial = |ip: &str, port| check_address(ip.parse().unwrap(), &PrivateAddresses::Any, &own, port);
        assert_eq!(dial("127.0.0.1", 8443), Err(BlockedAddress::OwnListener));
        assert_eq!(dial("::ffff:127.0.0.1", 8443), Err(BlockedAddress::OwnListener));
        assert_eq!(dial("64:ff9b::7f00:1", 8443), Err(BlockedAddress::OwnListener));
        assert_eq!(dial("127.0.0.1", 8444), Ok(()));
        assert_eq!(dial("10.0.0.1", 53), Err(BlockedAddress::OwnListener));
        assert_eq!(dial("1.1.1.1", 53), Ok(()));
    }

    proptest! {
        #[test]
        fn embedded_ipv4_address_is_judged(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = v4.octets();
            let high = u16::from_be_bytes([a, b]);
            let low = u16::from_be_bytes([c, d]);
            let plain = scope(v4.into());
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            prop_assert_eq!(
                check_address(mapped, &PrivateAddresses::None, &[], 1),
                check_address(v4.into(), &PrivateAddresses::None, &[], 1)
            );
            prop_assert_eq!(scope_v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)), plain);
            prop_assert_eq!(scope_v6(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)), plain);
            prop_assert!(scope_v6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low)) >= plain);
            prop_assert!(scope_v6(Ipv6Addr::new(0x2001, 0, 1, 1, 0, 0, !high, !low)) >= plain);
        }

        #[test]
        fn ipv6_public_scope_is_global_unicast_or_translation(bits: u128) {
            let ip = Ipv6Addr::from_bits(bits);
            if scope_v6(ip) == AddressScope::Public {
                let first = ip.segments()[0];
                prop_assert!((0x2000..=0x3fff).contains(&first) || first == 0x64);
            }
        }
    }
}
