//! The lookup of the process at the other end of a connection, which each system implements.

use std::net::SocketAddr;

use super::{IdentityError, Process};

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct SocketAddrs {
    /// The caller's.
    pub theirs: SocketAddr,
    /// Ours.
    pub ours: SocketAddr,
}

/// A system that can tell which process holds the caller's end.
pub trait PeerLookup: Send + Sync {
    /// That process. Blocks.
    fn process(&self, ends: SocketAddrs) -> Result<Process, IdentityError>;
}
