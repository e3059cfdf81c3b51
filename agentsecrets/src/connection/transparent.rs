//! Connections that the kernel sent to us. A connection without a record of the kernel's is reset,
//! never guessed: whoever opened it is not an agent of ours.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use agentsecrets_ebpf::Snapshot;

use super::ebpf::{Flows, original};
use super::ending::reset;

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

/// A listening socket that the kernel programs redirect to.
pub struct Transparent {
    listener: TcpListener,
    flows: std::sync::Arc<Flows>,
}

impl Transparent {
    /// Wraps a listening socket.
    pub fn new(listener: std::net::TcpListener, flows: std::sync::Arc<Flows>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, flows })
    }

    /// The next connection of an agent. Connections without a record are reset and passed over.
    pub async fn accept(&self) -> Accepted {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: the backlog waits for us, nothing passes unseen.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match self.recognise(&stream, peer) {
                Ok(Some((destination, snapshot))) => {
                    return Accepted { stream, destination, snapshot, at: Instant::now() };
                }
                Ok(None) => {
                    tracing::warn!(%peer, "refused a connection that the kernel has no record of");
                    reset(stream);
                }
                Err(error) => {
                    tracing::error!(%peer, %error, "refused a connection whose record cannot be read");
                    reset(stream);
                }
            }
        }
    }

    fn recognise(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<Option<(SocketAddr, Snapshot)>> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let origin = self.flows.take_of(stream, peer, local).map_err(io::Error::other)?;
        Ok(origin.map(|origin| (original(&origin), origin.snapshot)))
    }
}
