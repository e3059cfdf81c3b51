//! Counts the exchanges in flight on one connection. The HTTP/1 guard consults it before it ends the
//! stream, and the server before it closes an idle connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::types::body::{Body, BodyHooks, HookedBody};
use crate::types::sync::MutexExt;

/// Exchange counter of one connection.
#[derive(Default)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    /// Time at which the last exchange ended.
    idle_since: Mutex<Option<Instant>>,
    reader_waker: AtomicWaker,
}

/// Guard for one exchange in flight. It is released when the response body is dropped.
pub(super) struct ExchangeGuard(Arc<Activity>);

impl Activity {
    pub(super) fn start_exchange(self: &Arc<Self>) -> ExchangeGuard {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        ExchangeGuard(self.clone())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Registers the reader's task, which is woken whenever an exchange ends.
    pub(super) fn register_waker(&self, cx: &Context<'_>) {
        self.reader_waker.register(cx.waker());
    }

    /// Resolves when no exchange has been in flight for `timeout`.
    pub(super) async fn wait_idle(&self, timeout: Duration) {
        let begun = Instant::now();
        loop {
            let since = *self.idle_since.lock_ignoring_poison();
            let deadline = since.unwrap_or(begun).max(begun) + timeout;
            if !self.is_busy() && deadline <= Instant::now() {
                return;
            }
            // While an exchange is in flight, check again one timeout later.
            let deadline = if self.is_busy() { Instant::now() + timeout } else { deadline };
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl ExchangeGuard {
    /// Ties the guard to the lifetime of `body`.
    pub(super) fn attach_to(self, body: Body) -> Body {
        HookedBody::new(body, self).boxed_unsync()
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        *self.0.idle_since.lock_ignoring_poison() = Some(Instant::now());
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.reader_waker.wake();
    }
}

impl BodyHooks for ExchangeGuard {}
