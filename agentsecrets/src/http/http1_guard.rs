//! The agent's side of a connection as the HTTP library gets it: strict about HTTP/1.1's framing, and
//! impatient with a head that trickles in and with a reader that takes nothing.

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
use crate::http::framing::{Follower, Violation};
use crate::http::header_case::Spellings;
use crate::types::timeouts::Timeouts;

/// How much is read at a time, in bytes.
const PIECE: usize = 16 * 1024;
/// How long, and how many bytes, a client that was refused may go on sending before it is cut off: a
/// connection that is closed on unread bytes is reset, and the refusal is lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// What is told of a client that is not listened to any longer.
pub(super) type Tell = Box<dyn FnOnce(Violation) + Send>;

/// A connection, watched.
pub(super) struct Gate<IO> {
    io: IO,
    follower: Follower,
    /// What was read; the first `cleared` bytes of it may be read on.
    incoming: BytesMut,
    cleared: usize,
    /// Nothing more is read.
    ended: bool,
    refused: Option<Refused>,
    tell: Option<Tell>,
    activity: Arc<Activity>,
    head: Timer,
    write: Timer,
}

/// A refusal on its way out.
struct Refused {
    answer: BytesMut,
    linger: Timer,
    lingered: usize,
    is_shut: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Gate<IO> {
    /// Around a connection that speaks HTTP/1, whose spellings are kept, or is passed as it is.
    pub(super) fn new(
        io: IO,
        spellings: Option<Arc<Spellings>>,
        timeouts: &Timeouts,
        activity: Arc<Activity>,
        tell: Tell,
    ) -> Self {
        Self {
            io,
            follower: spellings.map_or_else(Follower::raw, Follower::keeping),
            incoming: BytesMut::new(),
            cleared: 0,
            ended: false,
            refused: None,
            tell: Some(tell),
            activity,
            head: Timer::new(timeouts.head),
            write: Timer::new(timeouts.body_idle),
        }
    }

    /// Listens no longer. What is under way is finished; then the client is told.
    fn refuse(&mut self, violation: Violation, at_head: bool) {
        self.incoming.truncate(self.cleared);
        self.ended = true;
        // A body that is no body breaks its own request, which has a record and an answer.
        if at_head {
            let answer = BytesMut::from(&*error_response::violation(violation));
            let linger = Timer::new(LINGER);
            self.refused = Some(Refused { answer, linger, lingered: 0, is_shut: false });
            if let Some(tell) = self.tell.take() {
                tell(violation);
            }
        }
    }

    fn clear(&mut self) {
        let fresh = self.incoming.get(self.cleared..).unwrap_or_default();
        let (passed, verdict) = self.follower.advance(fresh);
        self.cleared += passed;
        if let Err(violation) = verdict {
            self.refuse(violation, self.follower.is_at_head());
        }
    }

    /// Reads once from the connection. `Ready` when there is something to go on with.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Into the stack first: a connection that waits for its next request holds no room for it.
        let read = {
            let mut piece = [std::mem::MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut piece);
            self.incoming.extend_from_slice(piece.filled());
            read.map_ok(|()| piece.filled().len())
        };
        let mid_head = self.follower.is_at_head() && !self.incoming.is_empty();
        match read {
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                let message = "the connection ended in the middle of a request's head";
                if mid_head {
                    self.refuse(Violation { status: 400, message }, true);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => {
                self.clear();
                if !self.follower.is_at_head() || self.incoming.len() == self.cleared {
                    self.head.disarm();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if mid_head && self.head.poll(cx).is_ready() => {
                let message = "the request's head took too long";
                self.refuse(Violation { status: 408, message }, true);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sends the refusal, says that nothing follows, and waits a little for the client to read it.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refused) = &mut self.refused else { return Pin::new(&mut self.io).poll_shutdown(cx) };
        while !refused.answer.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &refused.answer))?;
            refused.answer.advance(written.max(1).min(refused.answer.len()));
        }
        if !refused.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            refused.is_shut = true;
        }
        while refused.lingered < LINGER_BYTES {
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

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(done) => {
                self.write.disarm();
                Poll::Ready(done)
            }
            Poll::Pending if self.write.poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.cleared > 0 {
                let passed = gate.cleared.min(buffer.remaining());
                buffer.put_slice(gate.incoming.get(..passed).unwrap_or_default());
                gate.incoming.advance(passed);
                gate.cleared -= passed;
                return Poll::Ready(Ok(()));
            }
            if gate.follower.is_raw() && gate.incoming.is_empty() {
                return Pin::new(&mut gate.io).poll_read(cx, buffer);
            }
            if gate.refused.is_some() {
                // An end of the stream would break off the requests before this one.
                gate.activity.register(cx);
                if gate.activity.is_busy() {
                    return Poll::Pending;
                }
            }
            if gate.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(gate.poll_more(cx))?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = Pin::new(&mut gate.io).poll_write(cx, bytes);
        gate.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = Pin::new(&mut gate.io).poll_write_vectored(cx, slices);
        gate.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let flushed = Pin::new(&mut gate.io).poll_flush(cx);
        gate.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let shut = gate.poll_refuse(cx);
        gate.watch(cx, shut)
    }
}

/// A wait that is begun when it is first asked about.
struct Timer {
    patience: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl Timer {
    fn new(patience: Duration) -> Self {
        Self { patience, sleep: None, is_armed: false }
    }

    fn disarm(&mut self) {
        self.is_armed = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if !self.is_armed {
            sleep.as_mut().reset(Instant::now() + patience);
            self.is_armed = true;
        }
        let over = sleep.as_mut().poll(cx);
        if over.is_ready() {
            self.is_armed = false;
        }
        over
    }
}
