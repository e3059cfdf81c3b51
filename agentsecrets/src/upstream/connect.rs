//! One connection to an upstream: TCP to the first checked address that answers, then TLS. The
//! connection is reset rather than flushed if we die: what was written for a request that nobody
//! watches any more must not reach the server by itself.

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

/// How long the next address waits for the one before it.
const STAGGER: Duration = Duration::from_millis(300);
/// How many bytes may wait in the kernel beyond those in flight. A limit on what is not yet sent
/// keeps cancelled uploads short, and unlike a small send buffer costs distant servers no speed.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// Why there is no connection. The texts of `Untrusted` and `Handshake` name no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// No address answered; the last error.
    #[error("{0}")]
    Tcp(io::Error),
    /// The certificate does not prove the name.
    #[error("{0}")]
    Untrusted(rustls::CertificateError),
    /// TLS failed otherwise.
    #[error("{0}")]
    Handshake(io::Error),
}

/// Connects to the first of `addresses` that answers, trying the next one when the one before it
/// fails or dawdles.
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
            match tokio::time::timeout(STAGGER, tries.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            }
        };
        match outcome {
            Some(Ok(stream)) => {
                prepare(&stream).map_err(ConnectError::Tcp)?;
                return Ok(stream);
            }
            Some(Err(error)) => last = error,
            None => return Err(ConnectError::Tcp(last)),
        }
    }
}

/// Speaks TLS on `stream`, and checks that the other end is `host`.
pub(super) async fn secure(
    stream: TcpStream,
    host: &Host,
    config: Arc<ClientConfig>,
) -> Result<Wire, ConnectError> {
    let name = match host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|error| ConnectError::Handshake(io::Error::other(error)))?,
    };
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(Wire::Tls(Box::new(stream))),
        Err(error) => {
            let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            match reason {
                Some(rustls::Error::InvalidCertificate(why)) => Err(ConnectError::Untrusted(why.clone())),
                _ => Err(ConnectError::Handshake(error)),
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_zero_linger()?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// A connection, plain or not.
pub(super) enum Wire {
    /// Without TLS, for `http` targets.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Whether both ends agreed on HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Wire::Plain(_) => false,
            Wire::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// The address of the other end.
    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// The graceful end: only from here on may what was written outlive us.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Where this fails, the connection is reset, which is the safe side.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(None);
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A connection of ours, and the other end of it.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = dial(&[address]).await.unwrap();
        (Wire::Plain(stream), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_waits_in_the_kernel_is_dropped_when_the_connection_is_cut() {
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
    async fn a_graceful_end_delivers_everything() {
        let (mut wire, mut server) = pair().await;
        wire.write_all(&[7; 100_000]).await.unwrap();
        wire.shutdown().await.unwrap();
        drop(wire);
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 100_000);
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = open.local_addr().unwrap();
        assert_eq!(dial(&[closed, good]).await.unwrap().peer_addr().unwrap(), good);
        assert!(matches!(dial(&[closed]).await, Err(ConnectError::Tcp(_))));
        assert!(matches!(dial(&[]).await, Err(ConnectError::Tcp(_))));
    }
}
