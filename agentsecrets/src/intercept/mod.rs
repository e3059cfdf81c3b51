//! Interception: the ways in which connections arrive. Each yields a stream and the system's knowledge of its
//! peer.

pub mod connection_limit;
#[cfg(target_os = "linux")]
pub mod ebpf;
pub mod explicit;
#[cfg(target_os = "linux")]
pub mod nftables;
pub mod protocol_detection;
pub mod reset_on_drop;
#[cfg(target_os = "linux")]
pub mod transparent;

use std::fmt;
use std::net::SocketAddr;

use crate::types::host::Host;

#[cfg(target_os = "linux")]
pub use agentsecrets_ebpf::Snapshot;

/// The destination of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To an address: names that are said on the way evaluate, but for the port.
    Address(SocketAddr),
    /// To the server that a proxy was asked for.
    Named(Host, u16),
}

impl Destination {
    /// The server, as far as the destination names it.
    pub fn host(&self) -> Host {
        match self {
            Self::Address(address) => address.ip().into(),
            Self::Named(host, _) => host.clone(),
        }
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Named(_, port) => *port,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Named(host, port) => write!(f, "{host}:{port}"),
        }
    }
}
