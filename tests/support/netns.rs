//! A second network on this machine: a namespace of its own, joined to ours by a veth pair, so that a
//! server there is truly elsewhere and what crosses the wire can be seen.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{command, finish};

/// The namespace; dropping it removes it and its link.
pub(crate) struct Netns {
    name: String,
    link: String,
    number: u32,
    handle: Handle,
}

/// What a thread needs to enter the namespace.
#[derive(Clone)]
pub(crate) struct Handle(Arc<File>);

impl Netns {
    /// Makes one, with addresses of both families on both ends. Needs root.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Unique among the tests of this process, and as good as unique among processes: 10.x.y.0/30.
        let number = (std::process::id().wrapping_mul(64) + NEXT.fetch_add(1, Ordering::Relaxed)) % (1 << 22);
        let (name, link) = (format!("as-test-{number}"), format!("as{number}"));
        ip(&["netns", "add", &name]);
        let handle = Handle(Arc::new(File::open(format!("/run/netns/{name}")).unwrap()));
        let netns = Self { name, link, number, handle };
        let (name, link) = (netns.name.as_str(), netns.link.as_str());
        ip(&["link", "add", link, "type", "veth", "peer", "name", "wire", "netns", name]);
        for (address, device, inside) in [
            (format!("{}/30", netns.here4()), link, false),
            (format!("{}/126", netns.here6()), link, false),
            (format!("{}/30", netns.there4()), "wire", true),
            (format!("{}/126", netns.there6()), "wire", true),
        ] {
            let place: &[&str] = if inside { &["-n", name] } else { &[] };
            // Without duplicate detection an IPv6 address is usable at once.
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            ip(&[place, &["address", "add", &address, "dev", device], nodad].concat());
            ip(&[place, &["link", "set", device, "up"]].concat());
        }
        ip(&["-n", name, "link", "set", "lo", "up"]);
        netns
    }

    /// Our end's IPv4 address.
    pub(crate) fn here4(&self) -> Ipv4Addr {
        self.address4(1)
    }

    /// The other end's IPv4 address.
    pub(crate) fn there4(&self) -> Ipv4Addr {
        self.address4(2)
    }

    /// Our end's IPv6 address.
    pub(crate) fn here6(&self) -> Ipv6Addr {
        self.address6(1)
    }

    /// The other end's IPv6 address.
    pub(crate) fn there6(&self) -> Ipv6Addr {
        self.address6(2)
    }

    /// A number that no other test of this process has.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The name of the namespace, under `/run/netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name of our end's device.
    pub(crate) fn link(&self) -> &str {
        &self.link
    }

    /// For threads that work inside.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    fn address4(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from((10 << 24) | (self.number << 2) | host)
    }

    fn address6(&self, host: u16) -> Ipv6Addr {
        let [_, a, b, c] = self.number.to_be_bytes();
        Ipv6Addr::new(0xfd00, 0xa6, u16::from(a), u16::from_be_bytes([b, c]), 0, 0, 0, host)
    }
}

impl Handle {
    /// Moves the calling thread into the namespace for good: sockets it makes are made there.
    pub(crate) fn enter(&self) {
        nix::sched::setns(&*self.0, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The namespace lives on while a socket in it does; the link is removed by name so that it does not.
        finish(command("ip").args(["link", "delete", &self.link]));
        finish(command("ip").args(["netns", "delete", &self.name]));
    }
}

fn ip(arguments: &[&str]) {
    finish(command("ip").args(arguments)).ok();
}
