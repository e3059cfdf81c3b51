//! Tracks how much of a request the server has taken, so that a server that reads a long request slowly is not
//! taken for one that does nothing.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::types::body::{Body, BodyError, BodyHooks, HookedBody, PolledFrame};
use crate::types::sync::MutexExt;

/// The progress of one request, shared by its clones.
#[derive(Clone)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
}

struct State {
    last_frame: Instant,
    body_failure: Option<BodyFailure>,
    /// Whether more of the request is to come.
    is_unfinished: bool,
}

/// The reason why the agent's body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFailure {
    /// Larger than allowed.
    TooLarge,
    /// No data for too long.
    Stalled,
    Broken,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                last_frame: Instant::now(),
                body_failure: None,
                is_unfinished: false,
            })),
        }
    }
}

impl Progress {
    /// Wraps `body`: each frame that is taken from it counts as progress.
    pub(super) fn track(&self, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        self.lock().is_unfinished = true;
        HookedBody::new(body, self.clone()).boxed_unsync()
    }

    pub(super) fn restart(&self) {
        self.lock().last_frame = Instant::now();
    }

    pub(super) fn body_failure(&self) -> Option<BodyFailure> {
        self.lock().body_failure
    }

    /// Whether the server has not taken the whole request yet.
    pub(super) fn is_unfinished(&self) -> bool {
        self.lock().is_unfinished
    }

    /// The output of `response`, or `None` after `limit` without progress.
    pub(super) async fn timeout<F: Future>(&self, limit: Duration, response: F) -> Option<F::Output> {
        tokio::pin!(response);
        loop {
            let deadline = self.lock().last_frame + limit;
            match timeout_at(deadline, &mut response).await {
                Ok(response) => return Some(response),
                Err(_) if self.lock().last_frame + limit > deadline => {}
                Err(_) => return None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_ignoring_poison()
    }
}

impl BodyHooks for Progress {
    fn on_frame(&mut self, frame: PolledFrame, is_end: bool) -> PolledFrame {
        let mut state = self.lock();
        state.last_frame = Instant::now();
        match &frame {
            Some(Err(BodyError::TooLarge)) => state.body_failure = Some(BodyFailure::TooLarge),
            Some(Err(BodyError::Stalled)) => state.body_failure = Some(BodyFailure::Stalled),
            Some(Err(_)) => state.body_failure = Some(BodyFailure::Broken),
            _ => {}
        }
        state.is_unfinished = matches!(&frame, Some(Ok(_))) && !is_end;
        drop(state);
        frame
    }
}
