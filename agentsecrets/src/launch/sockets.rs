//! Listeners for agents' traffic. They are bound before anything of the agent exists and held by the
//! interceptor alone, so that connections are refused once it has ended.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::intercept::ebpf::Ports;

const BACKLOG: i32 = 4096;

/// Attempts to find a port that is free in both families.
const BIND_ATTEMPTS: usize = 64;

/// The listeners of a run, on 127.0.0.1 and, where the system has IPv6, on `[::1]`.
pub(crate) struct ListenerSockets {
    pub(crate) ports: Ports,
    /// Listeners for connections.
    pub(crate) listeners: Vec<OwnedFd>,
    /// Sockets of the resolver for datagrams.
    pub(crate) dns_udp: Vec<OwnedFd>,
    /// Listeners of the resolver for connections.
    pub(crate) dns_tcp: Vec<OwnedFd>,
}

impl ListenerSockets {
    /// Binds all of them to free ports.
    pub(crate) fn bind() -> io::Result<Self> {
        let (listener, mut groups) = bind_shared_port(&[Type::STREAM])?;
        let listeners = groups.pop().unwrap_or_default();
        let (dns, mut groups) = bind_shared_port(&[Type::STREAM, Type::DGRAM])?;
        let dns_udp = groups.pop().unwrap_or_default();
        let dns_tcp = groups.pop().unwrap_or_default();
        Ok(Self { ports: Ports { listener, dns }, listeners, dns_udp, dns_tcp })
    }

    /// Binds all of them to the ports of the hooks in force. Connections of the previous owner may still
    /// linger there.
    pub(crate) fn bind_ports(ports: Ports) -> io::Result<Self> {
        let mut groups = try_bind(ports.listener, &[Type::STREAM])?.1;
        let listeners = groups.pop().unwrap_or_default();
        let mut groups = try_bind(ports.dns, &[Type::STREAM, Type::DGRAM])?.1;
        let dns_udp = groups.pop().unwrap_or_default();
        let dns_tcp = groups.pop().unwrap_or_default();
        Ok(Self { ports, listeners, dns_udp, dns_tcp })
    }

    /// Lets the next executed program inherit them.
    pub(crate) fn clear_close_on_exec(&self) -> io::Result<()> {
        for socket in self.listeners.iter().chain(&self.dns_udp).chain(&self.dns_tcp) {
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }
}

pub(crate) fn raw_fds(sockets: &[OwnedFd]) -> Vec<RawFd> {
    sockets.iter().map(AsRawFd::as_raw_fd).collect()
}

/// Binds one port for every type in every family; returns the sockets by type.
fn bind_shared_port(types: &[Type]) -> io::Result<(u16, Vec<Vec<OwnedFd>>)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..BIND_ATTEMPTS {
        match try_bind(0, types) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// Binds `port`, or a free one if it is 0.
fn try_bind(mut port: u16, types: &[Type]) -> io::Result<(u16, Vec<Vec<OwnedFd>>)> {
    let again = port != 0;
    let mut groups = Vec::new();
    for kind in types {
        let first = bind((Ipv4Addr::LOCALHOST, port).into(), *kind, again)?;
        if let Some(bound) = first.local_addr()?.as_socket() {
            port = bound.port();
        }
        let mut group = vec![first.into()];
        match bind((Ipv6Addr::LOCALHOST, port).into(), *kind, again) {
            Ok(second) => group.push(second.into()),
            Err(error) if is_without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
        groups.push(group);
    }
    Ok((port, groups))
}

fn bind(address: SocketAddr, kind: Type, again: bool) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(again && kind == Type::STREAM)?;
    socket.bind(&address.into())?;
    // Accepted connections inherit it: lingering ones do not prevent binding again, a listener does.
    socket.set_reuse_address(kind == Type::STREAM)?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lingering_ports_are_bound_again() {
        let first = ListenerSockets::bind().unwrap();
        let ports = first.ports;
        assert!(ListenerSockets::bind_ports(ports).is_err());
        let _client = std::net::TcpStream::connect(("127.0.0.1", ports.listener)).unwrap();
        let listener = std::net::TcpListener::from(first.listeners.into_iter().next().unwrap());
        // Our end closes first, and lingers.
        drop(listener.accept().unwrap());
        drop((listener, first.dns_udp, first.dns_tcp));
        assert_eq!(ListenerSockets::bind_ports(ports).unwrap().ports, ports);
    }

    #[test]
    fn families_and_types_share_a_port() {
        let sockets = ListenerSockets::bind().unwrap();
        assert_ne!(sockets.ports.listener, sockets.ports.dns);
        assert_eq!(sockets.listeners.len(), sockets.dns_udp.len());
        assert_eq!(sockets.dns_tcp.len(), sockets.dns_udp.len());
        assert!(std::net::TcpStream::connect(("127.0.0.1", sockets.ports.listener)).is_ok());
    }
}
