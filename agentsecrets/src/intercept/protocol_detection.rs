//! Detects the protocol of a new connection by its first byte, without consuming it.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A TLS record: a ClientHello follows.
    Tls,
    /// A method's first letter: plain HTTP.
    Http,
    /// Neither: the connection is reset.
    Unknown,
}

/// Waits for the first byte, for as long as `patience`.
pub async fn detect(stream: &TcpStream, time_limit: Duration) -> io::Result<Protocol> {
    let mut first = [0u8];
    let count = timeout(time_limit, stream.peek(&mut first)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(match (count, first[0]) {
        (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
        (_, 0x16) => Protocol::Tls,
        (_, byte) if byte.is_ascii_uppercase() => Protocol::Http,
        _ => Protocol::Unknown,
    })
}
