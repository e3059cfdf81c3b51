//! Opens one connection: TCP to the first address that answers, then TLS. If we die, the connection is reset
//! instead of flushed: bytes of a request that nobody watches any more must not reach the server.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::types::host::Host;

/// The delay before the next address is tried as well (RFC 8305).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(300);
/// The limit for unsent bytes in the kernel, in bytes. It keeps cancelled uploads short, and unlike a small send
/// buffer does not slow down transfers to distant servers.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Why no connection was opened. The texts of `Untrusted` and `Handshake` hold nothing of a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// No address accepted; this is the last error.
    #[error("{0}")]
    Tcp(io::Error),
    /// The certificate is not valid for the name.
    #[error("{0}")]
    Untrusted(rustls::CertificateError),
    /// TLS failed otherwise.
    #[error("{0}")]
    Handshake(io::Error),
}

/// Connects to the first of `addresses` that accepts. The next one is tried when an attempt fails or is slow.
pub(super) async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut rest = addresses.iter();
    let mut tries = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = rest.next();
        let is_last = more.is_none();
        tries.extend(more.map(|address| TcpStream::connect(*address)));
        let outcome = if is_last {
            tries.next().await
        } else {
            match tokio::time::timeout(CONNECTION_ATTEMPT_DELAY, tries.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            }
        };
        match outcome {
            Some(Ok(stream)) => {
                set_socket_options(&stream).map_err(ConnectError::Tcp)?;
                return Ok(stream);
            }
            Some(Err(error)) => last = error,
            None => return Err(ConnectError::Tcp(last)),
        }
    }
}

/// Negotiates TLS on `stream`, and verifies that the server is `host`.
pub(super) async fn tls_handshake(
    stream: TcpStream,
    host: &Host,
    config: Arc<ClientConfig>,
) -> Result<MaybeTlsStream, ConnectError> {
    let name = match host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|error| ConnectError::Handshake(io::Error::other(error)))?,
    };
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(MaybeTlsStream::Tls(Box::new(stream))),
        Err(error) => {
            let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            match reason {
                Some(rustls::Error::InvalidCertificate(reason)) => {
                    Err(ConnectError::Untrusted(reason.clone()))
                }
                _ => Err(ConnectError::Handshake(error)),
            }
        }
    }
}

fn set_socket_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_zero_linger()?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(())
}

/// A TCP connection with or without TLS.
pub(super) enum MaybeTlsStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl MaybeTlsStream {
    /// Whether ALPN selected HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            MaybeTlsStream::Plain(_) => false,
            MaybeTlsStream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            MaybeTlsStream::Plain(stream) => stream,
            MaybeTlsStream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for MaybeTlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTlsStream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            MaybeTlsStream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for MaybeTlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            MaybeTlsStream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            MaybeTlsStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            MaybeTlsStream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            MaybeTlsStream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            MaybeTlsStream::Plain(stream) => stream.is_write_vectored(),
            MaybeTlsStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTlsStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            MaybeTlsStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Restores lingering: only after a graceful end may written bytes outlive us.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // If this fails, the connection is reset, which is safe.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(None);
        match self.get_mut() {
            MaybeTlsStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            MaybeTlsStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A client connection and its server end.
    async fn pair() -> (MaybeTlsStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = dial(&[address]).await.unwrap();
        (MaybeTlsStream::Plain(stream), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn unsent_bytes_are_discarded_on_drop() {
        let (wire, mut server) = pair().await;
        let stream = wire.tcp();
        let mut written = 0;
        // Until the kernel takes no more: the receiver's buffer and ours are full.
        loop {
            match stream.try_write(&[7; 65536]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tokio::time::timeout(Duration::from_millis(200), stream.writable()).await.is_err() {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        // The kernel closes the sockets of a killed process in the same way.
        drop(wire);
        let mut read = Vec::new();
        let error = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(read.len() < written, "{} of {written}", read.len());
    }

    #[tokio::test]
    async fn shutdown_delivers_all_bytes() {
        let (mut wire, mut server) = pair().await;
        wire.write_all(&[7; 100_000]).await.unwrap();
        wire.shutdown().await.unwrap();
        drop(wire);
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 100_000);
    }

    #[tokio::test]
    async fn refused_address_falls_back_to_next() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = open.local_addr().unwrap();
        assert_eq!(dial(&[closed, good]).await.unwrap().peer_addr().unwrap(), good);
        assert!(matches!(dial(&[closed]).await, Err(ConnectError::Tcp(_))));
        assert!(matches!(dial(&[]).await, Err(ConnectError::Tcp(_))));
    }
}
