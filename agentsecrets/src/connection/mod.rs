//! How connections reach us. Every way in ends in one type, `Accepted`: a stream and what the kernel
//! knows of its other end.

#[cfg(target_os = "linux")]
pub mod ebpf;
pub mod ending;
pub mod room;
pub mod sniff;
#[cfg(target_os = "linux")]
pub mod transparent;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;

pub use agentsecrets_ebpf::Snapshot;

/// A connection that an agent opened and the kernel vouches for.
pub struct Accepted {
    /// The bytes.
    pub stream: TcpStream,
    /// Where the agent wanted to go. Its port is the target's port; its address is for the record.
    pub destination: SocketAddr,
    /// Who asked, as the kernel saw it in `connect`.
    pub snapshot: Snapshot,
    /// When it was accepted.
    pub at: Instant,
}
