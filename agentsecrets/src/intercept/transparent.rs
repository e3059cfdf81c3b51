//! Connections that the kernel sent to us, by programs or by rules of ours. A connection without a record of the
//! kernel's is reset, never guessed: whoever opened it is not an agent of ours.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use agentsecrets_ebpf::Snapshot;

use super::ebpf::{self, FlowMap};
use super::nftables;
use crate::intercept::reset_on_drop::reset;

/// A connection that an agent opened and the kernel vouches for.
pub struct Accepted {
    /// The bytes.
    pub stream: TcpStream,
    /// The destination that the agent connected to. Its port is the target's port; its address is for the
    /// record.
    pub destination: SocketAddr,
    /// Identifies the caller.
    pub trace: Trace,
    /// When it was accepted.
    pub at: Instant,
}

/// The kernel's record of the process that opened a connection.
#[derive(Debug, Clone, Copy)]
pub enum Trace {
    /// The snapshot that our programs took in `connect`.
    Snapshot(Snapshot),
    /// Both ends of the agent's socket, as it has them: rules see no more.
    Ends {
        /// Its own.
        theirs: SocketAddr,
        /// The original destination.
        wanted: SocketAddr,
    },
}

/// The source of connection records.
pub enum Records {
    /// Our programs.
    Programs(FlowMap),
    /// The kernel's tracker of connections, where rules of ours lead them here.
    Tracker,
}

/// A listening socket that agents' connections are led to.
pub struct Transparent {
    listener: TcpListener,
    records: Arc<Records>,
}

impl Transparent {
    /// Wraps a listening socket.
    pub fn new(listener: std::net::TcpListener, records: Arc<Records>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, records })
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
                Ok(Some((destination, trace))) => {
                    return Accepted { stream, destination, trace, at: Instant::now() };
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

    fn recognise(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<Option<(SocketAddr, Trace)>> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(match &*self.records {
            Records::Programs(flows) => {
                let origin = flows.take_of(stream, peer, local).map_err(io::Error::other)?;
                origin.map(|origin| (ebpf::original(&origin), Trace::Snapshot(origin.snapshot)))
            }
            Records::Tracker => {
                let wanted = nftables::original(stream, local)?;
                wanted.map(|wanted| (wanted, Trace::Ends { theirs: peer, wanted }))
            }
        })
    }
}
