//! Tells an upstream that takes its time to read a long request from one that does nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::types::body::{Body, BodyError};

/// How far a request has got. Clones are of the same request.
#[derive(Clone)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
}

struct State {
    last: Instant,
    broke: Option<Broke>,
    /// Whether more of the request is to come.
    is_unfinished: bool,
}

/// How the agent's body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broke {
    /// It is larger than allowed.
    TooLarge,
    /// It stood still for too long.
    Slow,
    /// Otherwise.
    Off,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State { last: Instant::now(), broke: None, is_unfinished: false })),
        }
    }
}

impl Progress {
    /// `body`, whose frames count as progress when they are taken.
    pub(super) fn watch(&self, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        self.lock().is_unfinished = true;
        Watched { body, progress: self.clone() }.boxed_unsync()
    }

    /// Starts the clock.
    pub(super) fn restart(&self) {
        self.lock().last = Instant::now();
    }

    /// How the agent's body broke off, if it did.
    pub(super) fn broke(&self) -> Option<Broke> {
        self.lock().broke
    }

    /// Whether the server has not been given the whole request yet.
    pub(super) fn is_unfinished(&self) -> bool {
        self.lock().is_unfinished
    }

    /// What comes of `answer`, or nothing once there was no progress for as long as `patience`.
    pub(super) async fn within<F: Future>(&self, patience: Duration, answer: F) -> Option<F::Output> {
        tokio::pin!(answer);
        loop {
            let deadline = self.lock().last + patience;
            match timeout_at(deadline, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.lock().last + patience > deadline => {}
                Err(_) => return None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watched {
    body: Body,
    progress: Progress,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let mut state = self.progress.lock();
        state.last = Instant::now();
        match &frame {
            Some(Err(BodyError::TooLarge)) => state.broke = Some(Broke::TooLarge),
            Some(Err(BodyError::Slow)) => state.broke = Some(Broke::Slow),
            Some(Err(_)) => state.broke = Some(Broke::Off),
            _ => {}
        }
        state.is_unfinished = matches!(&frame, Some(Ok(_))) && !self.body.is_end_stream();
        drop(state);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}
