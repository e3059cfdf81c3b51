//! The agent's side of TLS. The complete ClientHello is read first; then it is either answered with a
//! certificate for the requested name or passed through unopened.

use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::types::host::Host;

use super::leaf::{LeafCertCache, LeafError};
use crate::tls::client_hello::summarize;
use crate::tls::recording_stream::RecordingStream;

/// The fatal alert `access_denied` as a plaintext record.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A ClientHello that was read and not answered.
pub(crate) struct PendingHello {
    start: StartHandshake<RecordingStream>,
    deadline: Instant,
    host: Host,
}

/// A terminated connection, bound to one name.
pub(crate) struct Terminated {
    /// The decrypted stream.
    pub stream: TlsStream<RecordingStream>,
    /// The requested name, which our certificate carries.
    pub host: Host,
    /// Whether ALPN selected HTTP/2.
    pub is_http2: bool,
}

/// A connection that is not terminated.
pub(crate) struct Passthrough {
    /// The agent's connection, from which the ClientHello was read.
    pub stream: TcpStream,
    /// The ClientHello and any bytes after it.
    pub initial_bytes: Vec<u8>,
}

/// The agent's TLS connection ended before an exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TerminateError {
    /// The ClientHello or the handshake took too long.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// The bytes are not acceptable TLS, or the agent does not trust our authority.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    /// The requested server name is not a host name.
    #[error("the server name is not a valid host name")]
    InvalidServerName,
    /// An encrypted ClientHello may name another server.
    #[error("an encrypted ClientHello may name another server than the one it shows")]
    EncryptedClientHello,
    /// The certificate could not be generated.
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

impl PendingHello {
    /// Reads the ClientHello on `stream`. A client that sends no server name connects to an address, so
    /// `destination` is its name. Hello and handshake together may take `timeout`.
    pub(crate) async fn read(
        stream: TcpStream,
        destination: Host,
        timeout: Duration,
    ) -> Result<Self, TerminateError> {
        let deadline = Instant::now() + timeout;
        let reading = LazyConfigAcceptor::new(Acceptor::default(), RecordingStream::new(stream));
        let start = timeout_at(deadline, reading).await.map_err(|_| TerminateError::Timeout)??;
        let host = match start.client_hello().server_name() {
            Some(name) => name.parse().map_err(|_| TerminateError::InvalidServerName)?,
            None => destination,
        };
        Ok(Self { start, deadline, host })
    }

    /// The requested server.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Completes the handshake with our certificate.
    pub(crate) async fn terminate(
        mut self,
        leaf_certs: &LeafCertCache,
    ) -> Result<Terminated, TerminateError> {
        self.start.io.stop_recording();
        let config = leaf_certs.config(&self.host)?;
        let handshake = timeout_at(self.deadline, self.start.into_stream(config));
        let stream = handshake.await.map_err(|_| TerminateError::Timeout)??;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Terminated { stream, host: self.host, is_http2: http2 })
    }

    /// Checks that the hello hides no other server name; such a hello cannot be passed through, since its
    /// destination is unknown. When we terminate the connection, an encrypted hello is ignored and does
    /// no harm.
    pub(crate) fn check_server_name(&self) -> Result<(), TerminateError> {
        let summary = summarize(self.start.io.recorded()).ok_or(TerminateError::InvalidServerName)?;
        if summary.has_encrypted_hello {
            return Err(TerminateError::EncryptedClientHello);
        }
        // A name that rustls ignored must not be mistaken for an address.
        if summary.has_server_name != self.start.client_hello().server_name().is_some() {
            return Err(TerminateError::InvalidServerName);
        }
        Ok(())
    }

    /// Leaves the hello unanswered, to be passed through.
    pub(crate) fn into_passthrough(self) -> Passthrough {
        let (stream, first) = self.start.io.into_parts();
        Passthrough { stream, initial_bytes: first }
    }
}

impl Passthrough {
    /// Sends the alert `access_denied`.
    pub(crate) async fn reject(mut self) {
        let alert = async {
            self.stream.write_all(&ACCESS_DENIED).await?;
            self.stream.shutdown().await
        };
        // A client that does not read is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), alert).await;
    }
}

#[cfg(test)]
#[path = "terminate_tests.rs"]
mod tests;
