//! A connection that tells a good end from a bad one: unless it was ended on purpose it is reset, so that
//! an answer that broke off is never taken for one that was whole. Without this a body whose end is the
//! connection's end, as HTTP/1.0 has it, could be cut unseen.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// `IO` over a TCP connection.
pub struct Ending<IO> {
    io: IO,
    tcp: fn(&IO) -> &TcpStream,
}

impl<IO> Ending<IO> {
    /// Wraps `io`, whose connection is `tcp`.
    pub fn new(io: IO, tcp: fn(&IO) -> &TcpStream) -> Self {
        // Where this fails the connection is gone already.
        let _ = tcp(&io).set_zero_linger();
        Self { io, tcp }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Ending<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Ending<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The good end: from here on what was written is delivered.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Where this fails the connection is reset, which hides nothing.
        let _ = socket2::SockRef::from((this.tcp)(&this.io)).set_linger(None);
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Ending<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Ending::new(listener.accept().await.unwrap().0, |tcp| tcp), theirs)
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_is_reset() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"half").await.unwrap();
        drop(ours);
        let error = theirs.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_connection_that_is_ended_delivers_everything() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"whole").await.unwrap();
        ours.shutdown().await.unwrap();
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"whole");
    }
}
