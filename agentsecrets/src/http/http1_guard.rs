//! The client's side of a connection as hyper sees it. Enforces strict HTTP/1.1 framing, a timeout for
//! request heads and a timeout for clients that do not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;
use crate::http::error_response;
use crate::http::framing::{FramingParser, Violation};
use crate::http::header_case::HeaderCaseQueue;
use crate::types::timeouts::Timeouts;

/// Size of one read, in bytes.
const READ_SIZE: usize = 16 * 1024;
/// Limits for reading on after a rejection. A connection that is closed with unread bytes is reset, and
/// the client loses the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 256 * 1024;

/// Called once when the connection is rejected.
pub(super) type OnViolation = Box<dyn FnOnce(Violation) + Send>;

/// A connection whose framing is checked.
pub(super) struct Http1Guard<IO> {
    io: IO,
    parser: FramingParser,
    /// Bytes read so far; the first `checked` of them may be passed on.
    incoming: BytesMut,
    checked: usize,
    /// Whether reading has stopped.
    is_ended: bool,
    rejection: Option<PendingRejection>,
    on_violation: Option<OnViolation>,
    activity: Arc<Activity>,
    head_timer: Timer,
    write_timer: Timer,
}

/// A rejection that is being sent.
struct PendingRejection {
    unsent: BytesMut,
    linger: Timer,
    lingered: usize,
    is_shut: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Http1Guard<IO> {
    /// Wraps a connection: HTTP/1 with its queue of header names, or anything else unchecked.
    pub(super) fn new(
        io: IO,
        header_cases: Option<Arc<HeaderCaseQueue>>,
        timeouts: &Timeouts,
        activity: Arc<Activity>,
        on_violation: OnViolation,
    ) -> Self {
        Self {
            io,
            parser: header_cases.map_or_else(FramingParser::passthrough, FramingParser::new),
            incoming: BytesMut::new(),
            checked: 0,
            is_ended: false,
            rejection: None,
            on_violation: Some(on_violation),
            activity,
            head_timer: Timer::new(timeouts.head),
            write_timer: Timer::new(timeouts.body_idle),
        }
    }

    /// Stops reading. Exchanges in flight finish first; then the client receives the error.
    fn reject(&mut self, violation: Violation, at_head: bool) {
        self.incoming.truncate(self.checked);
        self.is_ended = true;
        // A malformed body fails its own request, which has a record and a response.
        if at_head {
            let unsent = BytesMut::from(&*error_response::violation_bytes(violation));
            let linger = Timer::new(LINGER_TIMEOUT);
            self.rejection = Some(PendingRejection { unsent, linger, lingered: 0, is_shut: false });
            if let Some(on_violation) = self.on_violation.take() {
                on_violation(violation);
            }
        }
    }

    fn check_incoming(&mut self) {
        let fresh = self.incoming.get(self.checked..).unwrap_or_default();
        let (passed, verdict) = self.parser.advance(fresh);
        self.checked += passed;
        if let Err(violation) = verdict {
            self.reject(violation, self.parser.is_at_head());
        }
    }

    /// Reads once from the connection. Ready when there is progress.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Read to the stack first: a connection that waits for its next request holds no buffer.
        let read = {
            let mut piece = [std::mem::MaybeUninit::uninit(); READ_SIZE];
            let mut piece = ReadBuf::uninit(&mut piece);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut piece);
            self.incoming.extend_from_slice(piece.filled());
            read.map_ok(|()| piece.filled().len())
        };
        let mid_head = self.parser.is_at_head() && !self.incoming.is_empty();
        match read {
            Poll::Ready(Ok(0)) => {
                self.is_ended = true;
                let message = "the connection ended in the middle of a request's head";
                if mid_head {
                    self.reject(Violation { status: 400, message }, true);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => {
                self.check_incoming();
                if !self.parser.is_at_head() || self.incoming.len() == self.checked {
                    self.head_timer.disarm();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if mid_head && self.head_timer.poll(cx).is_ready() => {
                let message = "the request's head took too long";
                self.reject(Violation { status: 408, message }, true);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sends the rejection, shuts the writing side and lingers so that the client can read it.
    fn poll_reject(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refused) = &mut self.rejection else { return Pin::new(&mut self.io).poll_shutdown(cx) };
        while !refused.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &refused.unsent))?;
            refused.unsent.advance(written.max(1).min(refused.unsent.len()));
        }
        if !refused.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            refused.is_shut = true;
        }
        while refused.lingered < MAX_LINGER_BYTES {
            let mut scratch = [0; 4096];
            let mut scratch = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {
                    refused.lingered += scratch.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return refused.linger.poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn with_write_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(done) => {
                self.write_timer.disarm();
                Poll::Ready(done)
            }
            Poll::Pending if self.write_timer.poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Http1Guard<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        loop {
            if guard.checked > 0 {
                let passed = guard.checked.min(buffer.remaining());
                buffer.put_slice(guard.incoming.get(..passed).unwrap_or_default());
                guard.incoming.advance(passed);
                guard.checked -= passed;
                return Poll::Ready(Ok(()));
            }
            if guard.parser.is_passthrough() && guard.incoming.is_empty() {
                return Pin::new(&mut guard.io).poll_read(cx, buffer);
            }
            if guard.rejection.is_some() {
                // Reporting the end of the stream would abort the requests before this one.
                guard.activity.register_waker(cx);
                if guard.activity.is_busy() {
                    return Poll::Pending;
                }
            }
            if guard.is_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(guard.poll_fill(cx))?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http1Guard<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.io).poll_write(cx, bytes);
        guard.with_write_timeout(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.io).poll_write_vectored(cx, slices);
        guard.with_write_timeout(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        let flushed = Pin::new(&mut guard.io).poll_flush(cx);
        guard.with_write_timeout(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        let shut = guard.poll_reject(cx);
        guard.with_write_timeout(cx, shut)
    }
}

/// A timeout that starts when it is first polled.
struct Timer {
    duration: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl Timer {
    fn new(duration: Duration) -> Self {
        Self { duration, sleep: None, is_armed: false }
    }

    fn disarm(&mut self) {
        self.is_armed = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.duration;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if !self.is_armed {
            sleep.as_mut().reset(Instant::now() + timeout);
            self.is_armed = true;
        }
        let over = sleep.as_mut().poll(cx);
        if over.is_ready() {
            self.is_armed = false;
        }
        over
    }
}
