//! A stream that records what is read from it until the fate of the connection is decided. The recorded
//! ClientHello of a passthrough connection is forwarded unchanged.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Maximum number of recorded bytes: the largest ClientHello that is accepted, in any segmentation.
const MAX_RECORDED: usize = 512 * 1024;

/// A TCP stream that records its input.
pub(crate) struct RecordingStream {
    stream: TcpStream,
    /// The recorded bytes; `None` once recording has stopped.
    recorded: Option<Vec<u8>>,
}

impl RecordingStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, recorded: Some(Vec::new()) }
    }

    /// Discards the recording and stops.
    pub(super) fn stop_recording(&mut self) {
        self.recorded = None;
    }

    /// Returns the recorded bytes.
    pub(super) fn recorded(&self) -> &[u8] {
        self.recorded.as_deref().unwrap_or_default()
    }

    /// Returns the underlying connection.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// Returns the stream and the recorded bytes.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.recorded.unwrap_or_default())
    }
}

impl AsyncRead for RecordingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(copy) = &mut self.recorded {
            let read = buffer.filled().get(before..).unwrap_or_default();
            if copy.len() + read.len() > MAX_RECORDED {
                return Poll::Ready(Err(io::Error::other("the ClientHello is too long")));
            }
            copy.extend_from_slice(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordingStream {
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
