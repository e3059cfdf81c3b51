//! The agent's side of TLS: the ClientHello is read whole, however it is cut, and only then it is decided
//! whether we answer it, under the one name it asks for, or pass it on unopened.

use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::types::host::Host;

use super::leaf::{LeafError, Leaves};
use crate::tls::client_hello::outline;
use crate::tls::recording_stream::Taped;

/// The fatal alert `access_denied`, as it goes over the wire before any handshake.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A ClientHello that was read and not answered.
pub struct Hello {
    start: StartHandshake<Taped>,
    deadline: Instant,
    host: Host,
}

/// A terminated connection, bound to one name.
pub struct Terminated {
    /// The clear bytes.
    pub stream: TlsStream<Taped>,
    /// The name the agent asked for, and for which our certificate stands.
    pub host: Host,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
}

/// A connection that stays closed to us.
pub struct Unopened {
    /// The agent's end, from which the ClientHello was read.
    pub stream: TcpStream,
    /// The ClientHello, and whatever came with it.
    pub first: Vec<u8>,
}

/// Why the agent's TLS ended before an exchange.
#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    /// The ClientHello or the handshake took too long.
    #[error("the TLS handshake took too long")]
    Slow,
    /// What came is no TLS we accept, or the agent does not trust us.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    /// The name it asks for is no host name.
    #[error("the server name is not a valid host name")]
    BadName,
    /// Another hello may be inside, which only the server can read.
    #[error("an encrypted ClientHello may name another server than the one it shows")]
    Hidden,
    /// We could not make a certificate.
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

impl Hello {
    /// Reads the ClientHello on `stream`. A client that names no server is one that connects to an address,
    /// so the `destination` it connected to names it. The hello and the handshake may together take as
    /// long as `patience`.
    pub async fn read(
        stream: TcpStream,
        destination: Host,
        patience: Duration,
    ) -> Result<Self, TerminateError> {
        let deadline = Instant::now() + patience;
        let reading = LazyConfigAcceptor::new(Acceptor::default(), Taped::new(stream));
        let start = timeout_at(deadline, reading).await.map_err(|_| TerminateError::Slow)??;
        let host = match start.client_hello().server_name() {
            Some(name) => name.parse().map_err(|_| TerminateError::BadName)?,
            None => destination,
        };
        Ok(Self { start, deadline, host })
    }

    /// The server it asks for.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Answers it in the server's stead.
    pub async fn terminate(mut self, leaves: &Leaves) -> Result<Terminated, TerminateError> {
        self.start.io.stop();
        let config = leaves.config(&self.host)?;
        let handshake = timeout_at(self.deadline, self.start.into_stream(config));
        let stream = handshake.await.map_err(|_| TerminateError::Slow)??;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Terminated { stream, host: self.host, http2 })
    }

    /// Whether it says all that there is to say of its server: a hello that may hide another name cannot be
    /// passed on, as nobody would know where to. Answered by us it does no harm: it is never opened.
    pub fn is_plain(&self) -> Result<(), TerminateError> {
        let outline = outline(self.start.io.copy()).ok_or(TerminateError::BadName)?;
        if outline.hides {
            return Err(TerminateError::Hidden);
        }
        // A name that the library passed over is not one that may be taken for an address.
        if outline.names != self.start.client_hello().server_name().is_some() {
            return Err(TerminateError::BadName);
        }
        Ok(())
    }

    /// Leaves it unanswered, to be passed on.
    pub fn unopened(self) -> Unopened {
        let (stream, first) = self.start.io.into_parts();
        Unopened { stream, first }
    }
}

impl Unopened {
    /// Tells the agent, in the words of TLS, that it may not.
    pub async fn refuse(mut self) {
        let told = async {
            self.stream.write_all(&ACCESS_DENIED).await?;
            self.stream.shutdown().await
        };
        // Who does not listen is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }
}

#[cfg(test)]
#[path = "terminate_tests.rs"]
mod tests;
