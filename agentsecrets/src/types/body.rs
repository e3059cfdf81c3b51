//! The one body type that flows through the stages: frames with backpressure, trailers included.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};

/// A streaming body, of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer broke off, or sent what is no HTTP.
    #[error("the peer broke off the body")]
    Peer(#[from] hyper::Error),
    /// The peer reset its stream before the body's end, though without calling it an error.
    #[error("the peer broke off the body")]
    Cut,
    /// The answer's coding is damaged, or expands beyond reason.
    #[error("the answer cannot be decoded: {0}")]
    Coding(&'static str),
    /// The request comes in chunks that cannot be signed anew.
    #[error("the request's chunks cannot be signed: {0}")]
    Chunks(&'static str),
    /// More than the rule allows.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// What it was let in for has ended.
    #[error("{0}")]
    Over(String),
    /// Nothing of it came for too long.
    #[error("the body stood still for too long")]
    Slow,
}

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already here.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `body`, which breaks off after `most` bytes.
pub fn limited(body: Body, most: u64) -> Body {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast::<BodyError>() {
        Ok(error) => *error,
        Err(error) if error.is::<LengthLimitError>() => BodyError::TooLarge,
        Err(_) => BodyError::Coding("the body broke off"),
    };
    Limited::new(body, most).map_err(failed).boxed_unsync()
}

/// `body`, which breaks off when nothing of it comes for as long as `patience`.
pub fn patient(body: Body, patience: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let sleep = Box::pin(tokio::time::sleep(patience));
    Patient { body, patience, sleep, is_waiting: false }.boxed_unsync()
}

struct Patient {
    body: Body,
    patience: Duration,
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether the body was asked and had nothing: only then is it the one who dawdles.
    is_waiting: bool,
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let patient = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut patient.body).poll_frame(cx) {
            patient.is_waiting = false;
            return Poll::Ready(frame);
        }
        if !patient.is_waiting {
            patient.is_waiting = true;
            patient.sleep.as_mut().reset(tokio::time::Instant::now() + patient.patience);
        }
        patient.sleep.as_mut().poll(cx).map(|()| Some(Err(BodyError::Slow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
