//! Cancels in-flight requests when their session or token ends. One thread polls the sessions and tokens that
//! requests hold, so that the requests themselves only wait.

use crate::types::sync::MutexExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

/// The session or token that a request depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RevocationSource {
    /// The session with this id.
    Session(Arc<str>),
    /// The agent token with this id.
    Token(Arc<str>),
}

/// A right that is held.
struct Revocation {
    over: CancellationToken,
    reason: OnceLock<String>,
}

/// Every right that is held by somebody.
#[derive(Default)]
pub(super) struct Revocations(Mutex<HashMap<RevocationSource, Weak<Revocation>>>);

/// The rights because of which one thing is under way.
#[derive(Clone, Default)]
pub struct RevocationGuard(Vec<Arc<Revocation>>);

impl Revocations {
    /// Holds `rights`.
    pub(super) fn hold(&self, rights: impl IntoIterator<Item = RevocationSource>) -> RevocationGuard {
        let mut rights = rights.into_iter().peekable();
        if rights.peek().is_none() {
            return RevocationGuard::default();
        }
        let mut revocations = self.0.lock_ignoring_poison();
        let hold = |right| {
            let place = revocations.entry(right).or_default();
            place.upgrade().filter(|hold| !hold.over.is_cancelled()).unwrap_or_else(|| {
                let hold = Arc::new(Revocation { over: CancellationToken::new(), reason: OnceLock::new() });
                *place = Arc::downgrade(&hold);
                hold
            })
        };
        RevocationGuard(rights.map(hold).collect())
    }

    /// Ends those of which `over` says why they are over.
    pub(super) fn poll(&self, over: impl Fn(&RevocationSource) -> Option<String>) {
        let revocations = {
            let mut revocations = self.0.lock_ignoring_poison();
            revocations.retain(|_, hold| hold.strong_count() > 0);
            revocations.clone()
        };
        for (right, hold) in revocations {
            let Some(hold) = hold.upgrade() else { continue };
            if let Some(reason) = over(&right) {
                let _ = hold.reason.set(reason);
                hold.over.cancel();
            }
        }
    }
}

impl RevocationGuard {
    /// Whether nothing of it can end.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why it is over, if it is.
    pub fn reason(&self) -> Option<&str> {
        let over = self.0.iter().find(|hold| hold.over.is_cancelled())?;
        Some(over.reason.get().map_or("", String::as_str))
    }

    /// Waits until one of them is over, and says why.
    pub async fn ended(&self) -> String {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let over = self.0.iter().map(|hold| Box::pin(hold.over.cancelled()));
        select_all(over).await;
        self.reason().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str) -> RevocationSource {
        RevocationSource::Session(id.into())
    }

    #[tokio::test]
    async fn guards_of_an_ended_session_learn_the_reason() {
        let holds = Revocations::default();
        let (one, both) = (holds.hold([session("a")]), holds.hold([session("a"), session("b")]));
        holds.poll(|right| (*right == session("b")).then(|| "b is over".to_owned()));
        assert_eq!(both.ended().await, "b is over");
        assert_eq!((one.reason(), both.reason()), (None, Some("b is over")));
        assert!(holds.hold([]).is_empty());
    }

    #[test]
    fn unheld_source_is_not_polled() {
        let holds = Revocations::default();
        drop(holds.hold([session("a")]));
        holds.poll(|_| panic!("nobody holds it"));
        assert!(holds.0.lock().unwrap().is_empty());
    }
}
