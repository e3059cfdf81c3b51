//! What is under way on one connection: known to its reader, which must not end it too early, and to its
//! server, which must not keep it for ever.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::types::body::{Body, BodyError};

/// Counts the exchanges of one connection.
#[derive(Default)]
pub(super) struct Activity {
    busy: AtomicUsize,
    /// When nothing was under way any more.
    since: Mutex<Option<Instant>>,
    reader: AtomicWaker,
}

/// One exchange under way, until its answer's body is dropped.
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Wakes the reader whenever an exchange ends.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// Ends once nothing was under way for as long as `patience`.
    pub(super) async fn idle(&self, patience: Duration) {
        let begun = Instant::now();
        loop {
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let deadline = since.unwrap_or(begun).max(begun) + patience;
            if !self.is_busy() && deadline <= Instant::now() {
                return;
            }
            // While something is under way, the connection is looked at again that much later.
            let deadline = if self.is_busy() { Instant::now() + patience } else { deadline };
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Busy {
    /// Lasts as long as `body`.
    pub(super) fn during(self, body: Body) -> Body {
        During { body, _busy: self }.boxed_unsync()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.reader.wake();
    }
}

struct During {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for During {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
