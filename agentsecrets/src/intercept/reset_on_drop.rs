//! A connection that tells a good end from a bad one: unless it was ended on purpose it is reset, so that
//! an answer that broke off is never taken for one that was whole. Without this a body whose end is the
//! connection's end, as HTTP/1.0 has it, could be cut unseen. And who still sends when it is answered gets to
//! read the answer: a socket that is closed on unread bytes would be reset, and take the answer with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Time limit for more bytes from a peer that has sent nothing since and has not closed.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Time limit for reading from a peer that does not stop sending.
const LINGER: Duration = Duration::from_secs(2);
const MAX_DRAINED: usize = 64 << 20;

/// Ends a connection with a reset, so that the other side sees a refusal and not an empty answer.
pub fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// `IO` over a TCP connection.
pub struct ResetOnDrop<IO> {
    io: IO,
    tcp: fn(&IO) -> &TcpStream,
    is_shut: bool,
    /// Set once it is shut: until when bytes may come that nobody asked for, and how many were passed over.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<IO> ResetOnDrop<IO> {
    /// Wraps `io`, whose connection is `tcp`.
    pub fn new(io: IO, tcp: fn(&IO) -> &TcpStream) -> Self {
        // Where this fails the connection is gone already.
        let _ = tcp(&io).set_zero_linger();
        Self { io, tcp, is_shut: false, lingering: None }
    }

    /// Passes over what is still sent, for a while. Who is done closes, and is not waited for.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = (self.tcp)(&self.io);
        let mut unread = [0; 16 << 10];
        loop {
            match tcp.try_read(&mut unread) {
                Ok(0) => return Poll::Ready(()),
                Ok(count) => {
                    let (time, passed) = self.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
                    if *passed == 0 {
                        time.set(sleep(LINGER));
                    }
                    *passed += count;
                    if *passed > MAX_DRAINED {
                        return Poll::Ready(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let (time, _) = self.lingering.get_or_insert_with(|| (Box::pin(sleep(DRAIN_TIMEOUT)), 0));
                    if time.as_mut().poll(cx).is_ready() || ready!(tcp.poll_read_ready(cx)).is_err() {
                        return Poll::Ready(());
                    }
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ResetOnDrop<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ResetOnDrop<IO> {
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
        if !this.is_shut {
            // Where this fails the connection is reset, which hides nothing.
            let _ = socket2::SockRef::from((this.tcp)(&this.io)).set_linger(None);
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.is_shut = true;
        }
        this.poll_unread(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ResetOnDrop<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ResetOnDrop::new(listener.accept().await.unwrap().0, |tcp| tcp), theirs)
    }

    #[tokio::test]
    async fn dropped_connection_is_reset() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"half").await.unwrap();
        drop(ours);
        let error = theirs.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn shut_down_connection_delivers_everything() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"whole").await.unwrap();
        ours.shutdown().await.unwrap();
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"whole");
    }

    #[tokio::test]
    async fn sending_peer_can_read_the_response() {
        let (mut ours, mut theirs) = pair().await;
        let sent = tokio::spawn(async move {
            let all = theirs.write_all(&[b'x'; 8 << 20]).await;
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.map(|_| (got, all.is_ok()))
        });
        ours.read_exact(&mut [0; 100]).await.unwrap();
        ours.write_all(b"no").await.unwrap();
        ours.shutdown().await.unwrap();
        drop(ours);
        assert_eq!(sent.await.unwrap().unwrap(), (b"no".to_vec(), true));
    }

    #[tokio::test]
    async fn silent_peer_is_not_waited_for() {
        let (mut ours, _theirs) = pair().await;
        tokio::time::timeout(LINGER / 2, ours.shutdown()).await.unwrap().unwrap();
    }
}
