//! The memory budget for buffered bodies.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Total size of buffered bodies per agent, in KiB.
const BODY_BUDGET_KIB: usize = 64 << 10;

/// Memory budget for the buffered bodies of one agent. A body waits until there is room for it.
#[derive(Clone)]
pub struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODY_BUDGET_KIB)))
    }
}

/// Bytes that hold their share of the budget while they live.
pub(super) struct PermittedBytes<B>(
    pub(super) B,
    #[expect(dead_code, reason = "it gives back its share when it is dropped")] pub(super) BodyPermit,
);

/// A share of the budget.
pub(super) type BodyPermit = Option<Arc<OwnedSemaphorePermit>>;

impl<B: AsRef<[u8]>> AsRef<[u8]> for PermittedBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl BodyBudget {
    /// Waits for a share of the budget. A body larger than the budget gets all of it.
    pub(super) async fn acquire(&self, bytes: u64) -> Option<Arc<OwnedSemaphorePermit>> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(BODY_BUDGET_KIB as u32);
        self.0.clone().acquire_many_owned(kib).await.ok().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn body_waits_for_budget() {
        let budget = BodyBudget::default();
        let large = budget.acquire(1 << 40).now_or_never().flatten().unwrap();
        let mut small = Box::pin(budget.acquire(1));
        assert!(small.as_mut().now_or_never().is_none());
        let body = Bytes::from_owner(PermittedBytes(b"x", Some(large)));
        let part = body.slice(..1);
        drop(body);
        assert!(small.as_mut().now_or_never().is_none());
        drop(part);
        assert!(small.now_or_never().flatten().is_some());
    }
}
