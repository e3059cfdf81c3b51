//! The sockets that agents' traffic is sent to: bound before anything of the agent exists, handed to the
//! interceptor, and held by nobody else, so that with the interceptor gone connections are refused.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::intercept::ebpf::Ports;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How often another port is tried when one is free in one family alone.
const ATTEMPTS: usize = 64;

/// The sockets of a run, on 127.0.0.1 and, where the system has it, on `[::1]`.
pub struct Sockets {
    /// Their ports.
    pub ports: Ports,
    /// Where connections come.
    pub listeners: Vec<OwnedFd>,
    /// Where questions to the resolver come as datagrams.
    pub dns_udp: Vec<OwnedFd>,
    /// Where they come as connections.
    pub dns_tcp: Vec<OwnedFd>,
}

impl Sockets {
    /// Binds them all.
    pub fn bind() -> io::Result<Self> {
        let (listener, mut groups) = together(&[Type::STREAM])?;
        let listeners = groups.pop().unwrap_or_default();
        let (dns, mut groups) = together(&[Type::STREAM, Type::DGRAM])?;
        let dns_udp = groups.pop().unwrap_or_default();
        let dns_tcp = groups.pop().unwrap_or_default();
        Ok(Self { ports: Ports { listener, dns }, listeners, dns_udp, dns_tcp })
    }

    /// Binds them at the ports that programs in force lead to. Who served there before may have left
    /// connections that are not quite over.
    pub fn bind_again(ports: Ports) -> io::Result<Self> {
        let mut groups = attempt(ports.listener, &[Type::STREAM])?.1;
        let listeners = groups.pop().unwrap_or_default();
        let mut groups = attempt(ports.dns, &[Type::STREAM, Type::DGRAM])?.1;
        let dns_udp = groups.pop().unwrap_or_default();
        let dns_tcp = groups.pop().unwrap_or_default();
        Ok(Self { ports, listeners, dns_udp, dns_tcp })
    }

    /// Lets the next program that is executed inherit them.
    pub fn inheritable(&self) -> io::Result<()> {
        for socket in self.listeners.iter().chain(&self.dns_udp).chain(&self.dns_tcp) {
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }
}

/// The numbers of `sockets`.
pub fn numbers(sockets: &[OwnedFd]) -> Vec<RawFd> {
    sockets.iter().map(AsRawFd::as_raw_fd).collect()
}

/// Binds one port for every type in every family; the sockets come by type.
fn together(types: &[Type]) -> io::Result<(u16, Vec<Vec<OwnedFd>>)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match attempt(0, types) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// At `port`, or at a free one if it is 0.
fn attempt(mut port: u16, types: &[Type]) -> io::Result<(u16, Vec<Vec<OwnedFd>>)> {
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
    // Its connections inherit it: what lingers of them keeps nobody from binding again, as who listens does.
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
    fn ports_are_taken_again_past_what_lingers_but_not_from_who_listens() {
        let first = Sockets::bind().unwrap();
        let ports = first.ports;
        assert!(Sockets::bind_again(ports).is_err());
        let _client = std::net::TcpStream::connect(("127.0.0.1", ports.listener)).unwrap();
        let listener = std::net::TcpListener::from(first.listeners.into_iter().next().unwrap());
        // Ours closes first, and lingers.
        drop(listener.accept().unwrap());
        drop((listener, first.dns_udp, first.dns_tcp));
        assert_eq!(Sockets::bind_again(ports).unwrap().ports, ports);
    }

    #[test]
    fn every_family_and_type_shares_a_port() {
        let sockets = Sockets::bind().unwrap();
        assert_ne!(sockets.ports.listener, sockets.ports.dns);
        assert_eq!(sockets.listeners.len(), sockets.dns_udp.len());
        assert_eq!(sockets.dns_tcp.len(), sockets.dns_udp.len());
        assert!(std::net::TcpStream::connect(("127.0.0.1", sockets.ports.listener)).is_ok());
    }
}
