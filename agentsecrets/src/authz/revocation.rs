//! What is under way because of a session or a token: it is broken off when that ends. One thread looks at
//! those that are held by somebody, so that what is under way waits and asks nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

/// What something is under way because of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Right {
    /// The session with this id.
    Session(Arc<str>),
    /// The agent token with this id.
    Token(Arc<str>),
}

/// A right that is held.
struct Hold {
    over: CancellationToken,
    why: OnceLock<String>,
}

/// Every right that is held by somebody.
#[derive(Default)]
pub(super) struct Holds(Mutex<HashMap<Right, Weak<Hold>>>);

/// The rights because of which one thing is under way.
#[derive(Clone, Default)]
pub struct Held(Vec<Arc<Hold>>);

impl Holds {
    /// Holds `rights`.
    pub(super) fn hold(&self, rights: impl IntoIterator<Item = Right>) -> Held {
        let mut rights = rights.into_iter().peekable();
        if rights.peek().is_none() {
            return Held::default();
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = |right| {
            let place = held.entry(right).or_default();
            place.upgrade().filter(|hold| !hold.over.is_cancelled()).unwrap_or_else(|| {
                let hold = Arc::new(Hold { over: CancellationToken::new(), why: OnceLock::new() });
                *place = Arc::downgrade(&hold);
                hold
            })
        };
        Held(rights.map(hold).collect())
    }

    /// Ends those of which `over` says why they are over.
    pub(super) fn look(&self, over: impl Fn(&Right) -> Option<String>) {
        let held = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, hold| hold.strong_count() > 0);
            held.clone()
        };
        for (right, hold) in held {
            let Some(hold) = hold.upgrade() else { continue };
            if let Some(why) = over(&right) {
                let _ = hold.why.set(why);
                hold.over.cancel();
            }
        }
    }
}

impl Held {
    /// Whether nothing of it can end.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// Why it is over, if it is.
    pub fn over(&self) -> Option<&str> {
        let over = self.0.iter().find(|hold| hold.over.is_cancelled())?;
        Some(over.why.get().map_or("", String::as_str))
    }

    /// Waits until one of them is over, and says why.
    pub async fn ended(&self) -> String {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let over = self.0.iter().map(|hold| Box::pin(hold.over.cancelled()));
        select_all(over).await;
        self.over().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str) -> Right {
        Right::Session(id.into())
    }

    #[tokio::test]
    async fn whoever_holds_what_ends_hears_why_and_others_nothing() {
        let holds = Holds::default();
        let (one, both) = (holds.hold([session("a")]), holds.hold([session("a"), session("b")]));
        holds.look(|right| (*right == session("b")).then(|| "b is over".to_owned()));
        assert_eq!(both.ended().await, "b is over");
        assert_eq!((one.over(), both.over()), (None, Some("b is over")));
        assert!(holds.hold([]).is_nothing());
    }

    #[test]
    fn what_nobody_holds_is_not_looked_at() {
        let holds = Holds::default();
        drop(holds.hold([session("a")]));
        holds.look(|_| panic!("nobody holds it"));
        assert!(holds.0.lock().unwrap().is_empty());
    }
}
