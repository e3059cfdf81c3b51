//! A stream that keeps a copy of what is read from it for as long as nobody knows yet what will become
//! of the connection: a ClientHello that turns out not to be ours to answer is passed on as it came.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The most that is kept, in bytes: the largest ClientHello that is read at all, however it is cut.
const LONGEST: usize = 512 * 1024;

/// The stream and the copy.
pub struct Taped {
    stream: TcpStream,
    /// What was read; none once it is known that nobody will want it.
    copy: Option<Vec<u8>>,
}

impl Taped {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, copy: Some(Vec::new()) }
    }

    /// Keeps nothing any more.
    pub(super) fn stop(&mut self) {
        self.copy = None;
    }

    /// What was read so far.
    pub(super) fn copy(&self) -> &[u8] {
        self.copy.as_deref().unwrap_or_default()
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// The stream, and what was read from it.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.copy.unwrap_or_default())
    }
}

impl AsyncRead for Taped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(copy) = &mut self.copy {
            let read = buffer.filled().get(before..).unwrap_or_default();
            if copy.len() + read.len() > LONGEST {
                return Poll::Ready(Err(io::Error::other("the ClientHello is too long")));
            }
            copy.extend_from_slice(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Taped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
