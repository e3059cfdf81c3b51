//! A second network on this machine: a network namespace connected to ours by a veth pair, so that a server
//! there is remote and its traffic can be captured.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{command, run};

/// The namespace; dropping it removes it and its link.
pub(crate) struct Netns {
    name: String,
    link: String,
    number: u32,
    handle: Handle,
}

/// A handle with which threads enter the namespace.
#[derive(Clone)]
pub(crate) struct Handle(Arc<File>);

impl Netns {
    /// Creates one, with IPv4 and IPv6 addresses on both ends. Needs root.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Unique among the tests of this process, and almost certainly among processes: 10.x.y.0/30.
        let number = (std::process::id().wrapping_mul(64) + NEXT.fetch_add(1, Ordering::Relaxed)) % (1 << 22);
        let (name, link) = (format!("as-test-{number}"), format!("as{number}"));
        ip(&["netns", "add", &name]);
        let handle = Handle(Arc::new(File::open(format!("/run/netns/{name}")).unwrap()));
        let netns = Self { name, link, number, handle };
        let (name, link) = (netns.name.as_str(), netns.link.as_str());
        ip(&["link", "add", link, "type", "veth", "peer", "name", "wire", "netns", name]);
        for (address, device, inside) in [
            (format!("{}/30", netns.local4()), link, false),
            (format!("{}/126", netns.local6()), link, false),
            (format!("{}/30", netns.peer4()), "wire", true),
            (format!("{}/126", netns.peer6()), "wire", true),
        ] {
            let place: &[&str] = if inside { &["-n", name] } else { &[] };
            // Without duplicate address detection an IPv6 address is usable at once.
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            ip(&[place, &["address", "add", &address, "dev", device], nodad].concat());
            ip(&[place, &["link", "set", device, "up"]].concat());
        }
        ip(&["-n", name, "link", "set", "lo", "up"]);
        netns
    }

    /// Our end's IPv4 address.
    pub(crate) fn local4(&self) -> Ipv4Addr {
        self.address4(1)
    }

    /// The other end's IPv4 address.
    pub(crate) fn peer4(&self) -> Ipv4Addr {
        self.address4(2)
    }

    /// Our end's IPv6 address.
    pub(crate) fn local6(&self) -> Ipv6Addr {
        self.address6(1)
    }

    /// The other end's IPv6 address.
    pub(crate) fn peer6(&self) -> Ipv6Addr {
        self.address6(2)
    }

    /// A number that no other test of this process has.
    pub(crate) fn id(&self) -> u32 {
        self.number
    }

    /// The namespace's name under `/run/netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The device at our end.
    pub(crate) fn link(&self) -> &str {
        &self.link
    }

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
    /// Moves the calling thread into the namespace for good.
    pub(crate) fn enter(&self) {
        nix::sched::setns(&*self.0, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The namespace lives as long as a socket in it; the link is removed by name so that it does not.
        run(command("ip").args(["link", "delete", &self.link]));
        run(command("ip").args(["netns", "delete", &self.name]));
    }
}

fn ip(arguments: &[&str]) {
    run(command("ip").args(arguments)).ok();
}
