//! Which addresses may be dialled. A name that somebody else controls can resolve to anything: to
//! our own listeners, to a cloud's metadata service, to the router. Public addresses pass; private
//! ones pass where the rule says so; some pass never. Addresses that carry an IPv4 address inside
//! are judged as that address too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::policy::grant::PrivateAddresses;

/// Why an address must not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No rule can allow it: metadata services, link-local, multicast, our synthetic addresses.
    #[error("an address that is never dialled")]
    Never,
    /// It is one of our own sockets.
    #[error("an address of the interceptor itself")]
    Ours,
    /// It is not public, and the rule does not say that private addresses are meant.
    #[error("a private address, which no rule allows")]
    NotPublic,
}

/// The first 48 bits of the IPv6 addresses that stand for names which no rule allows.
pub const SYNTHETIC_V6: [u16; 3] = [0xfd61, 0x6765, 0x6e74];

/// Whether `ip` may be dialled on `port`. `forbidden` are our own listeners, of any protocol.
pub fn check(
    ip: IpAddr,
    private: &PrivateAddresses,
    forbidden: &[SocketAddr],
    port: u16,
) -> Result<(), Refused> {
    let ip = ip.to_canonical();
    let reach = reach(ip);
    if reach == Reach::Never {
        return Err(Refused::Never);
    }
    // A listener on the unspecified address is on every address of this machine.
    let is_ours = |ours: &SocketAddr| {
        let own = ours.ip().to_canonical();
        let everywhere = own.is_unspecified() && reach == Reach::Private;
        ours.port() == port && (own == ip || everywhere || embedded(ip).contains(&Some(own)))
    };
    if forbidden.iter().any(is_ours) {
        return Err(Refused::Ours);
    }
    match private {
        _ if reach == Reach::Public => Ok(()),
        PrivateAddresses::Any => Ok(()),
        PrivateAddresses::Within(nets) if nets.iter().any(|net| net.contains(&ip)) => Ok(()),
        PrivateAddresses::Within(_) | PrivateAddresses::None => Err(Refused::NotPublic),
    }
}

/// Who can be at an address. The order matters: the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Public,
    Private,
    Never,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        // Metadata and credential services: EC2 and most clouds, ECS and EKS lie within link-local.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Reach::Never,
        // "This network", of which 0.0.0.0 means the machine itself on Linux.
        [0, 0, 0, 0] | [255, 255, 255, 255] => Reach::Never,
        // Link-local, multicast, and our synthetic addresses in the benchmarking range.
        [169, 254, ..] | [224..=239, ..] | [198, 18 | 19, ..] => Reach::Never,
        // This network, loopback, private, shared (CGNAT).
        [0 | 10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        // Protocol assignments, documentation, relays, reserved.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Private,
        [240..=255, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let own = match ip.segments() {
        // Metadata services of EC2 and Google's cloud.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] => Reach::Never,
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Reach::Never,
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Never,
        // Link-local and multicast.
        [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => Reach::Never,
        [a, b, c, ..] if [a, b, c] == SYNTHETIC_V6 => Reach::Never,
        // Translation to IPv4: as good as what it carries.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x2002, ..] => Reach::Public,
        // Protocol assignments with Teredo, documentation, and all that is no global unicast.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Private,
    };
    let carried = embedded(IpAddr::V6(ip)).into_iter().flatten().map(reach).max();
    own.max(carried.unwrap_or(Reach::Public))
}

/// The IPv4 addresses that `ip` may carry a packet to.
fn embedded(ip: IpAddr) -> [Option<IpAddr>; 4] {
    let IpAddr::V6(ip) = ip else { return [None; 4] };
    let o = ip.octets();
    let v4 = |a: u8, b: u8, c: u8, d: u8| Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let last = v4(o[12], o[13], o[14], o[15]);
    match ip.segments() {
        // Loopback, which is no IPv4 address of the compatible form.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        // Compatible, mapped and translated forms, and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [last, None, None, None],
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [last, None, None, None],
        // A network's own prefix of NAT64: the length of the prefix, thus the place, is not known.
        // Places that hold zeros are no address but padding.
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

    fn judge(ip: &str, private: &PrivateAddresses) -> Result<(), Refused> {
        check(ip.parse().unwrap(), private, &[], 443)
    }

    #[test]
    fn public_addresses_pass() {
        for ip in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "172.32.0.1"] {
            assert_eq!(judge(ip, &PrivateAddresses::None), Ok(()), "{ip}");
        }
    }

    #[test]
    fn what_is_not_public_passes_only_where_the_rule_says_private() {
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
            assert_eq!(judge(ip, &PrivateAddresses::None), Err(Refused::NotPublic), "{ip}");
            assert_eq!(judge(ip, &PrivateAddresses::Any), Ok(()), "{ip}");
        }
    }

    #[test]
    fn some_addresses_are_never_dialled() {
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
            assert_eq!(judge(ip, &PrivateAddresses::Any), Err(Refused::Never), "{ip}");
            assert_eq!(judge(ip, &all), Err(Refused::Never), "{ip}");
        }
    }

    #[test]
    fn a_rule_may_name_the_private_networks_it_means() {
        let within = PrivateAddresses::Within(["10.1.0.0/16".parse().unwrap()].into());
        assert_eq!(judge("10.1.2.3", &within), Ok(()));
        assert_eq!(judge("::ffff:10.1.2.3", &within), Ok(()));
        assert_eq!(judge("10.2.2.3", &within), Err(Refused::NotPublic));
        assert_eq!(judge("127.0.0.1", &within), Err(Refused::NotPublic));
        assert_eq!(judge("8.8.8.8", &within), Ok(()));
    }

    #[test]
    fn our_own_sockets_are_never_dialled() {
        let ours = ["127.0.0.1:8443", "[::]:53"].map(|a| a.parse().unwrap());
        let dial = |ip: &str, port| check(ip.parse().unwrap(), &PrivateAddresses::Any, &ours, port);
        assert_eq!(dial("127.0.0.1", 8443), Err(Refused::Ours));
        assert_eq!(dial("::ffff:127.0.0.1", 8443), Err(Refused::Ours));
        assert_eq!(dial("64:ff9b::7f00:1", 8443), Err(Refused::Ours));
        assert_eq!(dial("127.0.0.1", 8444), Ok(()));
        assert_eq!(dial("10.0.0.1", 53), Err(Refused::Ours));
        assert_eq!(dial("1.1.1.1", 53), Ok(()));
    }

    proptest! {
        #[test]
        fn disguises_of_an_ipv4_address_are_judged_as_that_address(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = v4.octets();
            let high = u16::from_be_bytes([a, b]);
            let low = u16::from_be_bytes([c, d]);
            let plain = reach_v4(v4);
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            prop_assert_eq!(
                check(mapped, &PrivateAddresses::None, &[], 1),
                check(v4.into(), &PrivateAddresses::None, &[], 1)
            );
            prop_assert_eq!(reach_v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)), plain);
            prop_assert_eq!(reach_v6(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)), plain);
            prop_assert!(reach_v6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low)) >= plain);
            prop_assert!(reach_v6(Ipv6Addr::new(0x2001, 0, 1, 1, 0, 0, !high, !low)) >= plain);
        }

        #[test]
        fn only_global_unicast_and_translation_is_public(bits: u128) {
            let ip = Ipv6Addr::from_bits(bits);
            if reach_v6(ip) == Reach::Public {
                let first = ip.segments()[0];
                prop_assert!((0x2000..=0x3fff).contains(&first) || first == 0x64);
            }
        }
    }
}
