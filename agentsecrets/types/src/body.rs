//! The one body type that flows through the stages: frames with backpressure, trailers included.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};

/// A streaming body of a request or a response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The reason for the early end of a body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer closed the connection, or violated HTTP.
    #[error("the peer broke off the body")]
    Peer(#[from] hyper::Error),
    /// The peer reset its stream before the end of the body, without an error code.
    #[error("the peer broke off the body")]
    Reset,
    /// The content coding of the response is damaged, or expands too much.
    #[error("the answer cannot be decoded: {0}")]
    Coding(&'static str),
    /// The request has signed chunks that cannot be signed again.
    #[error("the request's chunks cannot be signed: {0}")]
    Chunks(&'static str),
    /// The body is larger than the rule allows.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// The session or token of the caller has ended.
    #[error("{0}")]
    Revoked(String),
    /// No part of the body arrived within the time limit.
    #[error("the body stood still for too long")]
    Stalled,
}

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `body`, which fails after `most` bytes.
pub fn limited(body: Body, most: u64) -> Body {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast::<BodyError>() {
        Ok(error) => *error,
        Err(error) if error.is::<LengthLimitError>() => BodyError::TooLarge,
        Err(_) => BodyError::Coding("the body broke off"),
    };
    Limited::new(body, most).map_err(failed).boxed_unsync()
}

/// `body`, which fails if no part of it arrives for `timeout`.
pub fn with_idle_timeout(body: Body, timeout: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let sleep = Box::pin(tokio::time::sleep(timeout));
    HookedBody::new(body, IdleTimeout { timeout, sleep, is_waiting: false }).boxed_unsync()
}

struct IdleTimeout {
    timeout: Duration,
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether the body was polled and pending: only then is its sender the slow one.
    is_waiting: bool,
}

impl BodyHooks for IdleTimeout {
    fn on_frame(&mut self, frame: PolledFrame, _is_end: bool) -> PolledFrame {
        self.is_waiting = false;
        frame
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if !self.is_waiting {
            self.is_waiting = true;
            self.sleep.as_mut().reset(tokio::time::Instant::now() + self.timeout);
        }
        self.sleep.as_mut().poll(cx).map(|()| BodyError::Stalled)
    }
}

/// A frame or error of a body; `None` at its end.
pub type PolledFrame = Option<Result<Frame<Bytes>, BodyError>>;

/// Observes or changes the frames of a [`HookedBody`]. Hooks are dropped together with the body, so a guard is
/// a hook without methods.
pub trait BodyHooks {
    /// Receives every frame, error and end, and returns it or a replacement. `is_end` says that no frame
    /// follows.
    fn on_frame(&mut self, frame: PolledFrame, is_end: bool) -> PolledFrame {
        let _ = is_end;
        frame
    }

    /// Aborts the body. Polled before each frame.
    fn poll_abort(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let _ = cx;
        Poll::Pending
    }

    /// Aborts the body while it has no frame. Polled when the body is pending.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let _ = cx;
        Poll::Pending
    }
}

/// A body with hooks. Its size and end are those of the wrapped body.
pub struct HookedBody<B, H> {
    body: B,
    hooks: H,
}

impl<B, H> HookedBody<B, H> {
    /// Wraps `body`.
    pub fn new(body: B, hooks: H) -> Self {
        Self { body, hooks }
    }
}

impl<B, H> http_body::Body for HookedBody<B, H>
where
    B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    H: BodyHooks + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PolledFrame> {
        let Self { body, hooks } = &mut *self;
        if let Poll::Ready(error) = hooks.poll_abort(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let frame = frame.map(|frame| frame.map_err(Into::into));
                Poll::Ready(hooks.on_frame(frame, body.is_end_stream()))
            }
            Poll::Pending => hooks.poll_pending(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
