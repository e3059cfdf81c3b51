//! Limits the connections that are open at once. A client above the limit first loses connections on which it
//! sent nothing, then its new ones. Memory and descriptors stay bounded, and a crowd of half-open connections
//! keeps nobody out.

use crate::types::sync::MutexExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// The most connections held at once, however many descriptors there are.
const MAX_CONNECTIONS: usize = 10_000;
/// Descriptors that are ours: files, sockets we listen on, the resolver's.
const OURS: usize = 128;

/// The places for connections, shared by all threads.
pub struct ConnectionLimit {
    most: usize,
    /// The limit that this one is a share of.
    whole: Option<Arc<ConnectionLimit>>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    count: usize,
    next: u64,
    /// Those that have not said what they want, the oldest first.
    half_open: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection's place. Dropping it makes room.
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    number: u64,
    given_up: Option<oneshot::Receiver<()>>,
    /// The place in the limit that this one is a share of.
    whole: Option<Box<ConnectionPermit>>,
}

impl ConnectionLimit {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, whole: None, taken: Mutex::default() })
    }

    /// A limit of `most` connections that count toward this limit too. At least one is allowed.
    pub fn share(self: &Arc<Self>, most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), whole: Some(self.clone()), taken: Mutex::default() })
    }

    /// The limit that `descriptors` allow: each connection needs one descriptor, and one toward its server.
    pub fn for_descriptors(descriptors: u64) -> Arc<Self> {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self::new((descriptors.saturating_sub(OURS) / 2).clamp(1, MAX_CONNECTIONS))
    }

    /// The largest number of connections.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A place for a new connection, which is half open. Where all are taken, the connection that has
    /// been half open for longest loses its place; if there is none, there is no place.
    pub fn enter(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut taken = self.lock();
        if taken.count >= self.most {
            let (_, oldest) = taken.half_open.pop_first()?;
            // Its place is freed when it ends, a moment from now.
            let _ = oldest.send(());
        }
        // Only now: a full share must not evict connections of others.
        let whole = match &self.whole {
            Some(whole) => Some(Box::new(whole.enter()?)),
            None => None,
        };
        taken.count += 1;
        taken.next += 1;
        let number = taken.next;
        let (sender, receiver) = oneshot::channel();
        taken.half_open.insert(number, sender);
        Some(ConnectionPermit { limit: self.clone(), number, given_up: Some(receiver), whole })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock_ignoring_poison()
    }
}

impl ConnectionPermit {
    /// The result of `opening`, or `None` if the permit was reclaimed before. Afterwards the connection is
    /// not half open any more, and keeps its permit.
    pub async fn unless_given_up<F: Future>(&mut self, opening: F) -> Option<F::Output> {
        let given_up = self.given_up.take()?;
        let whole_given_up = self.whole.as_mut().and_then(|whole| whole.given_up.take());
        let opened = tokio::select! {
            opened = opening => Some(opened),
            _ = given_up => None,
            () = async { match whole_given_up {
                Some(given_up) => drop(given_up.await),
                None => std::future::pending().await,
            } } => None,
        };
        // Its place may have been given away in this very moment.
        if self.served() { opened } else { None }
    }

    /// The connection is not half open any more. Whether it still has its place.
    fn served(&self) -> bool {
        let whole = self.whole.as_ref().is_none_or(|whole| whole.served());
        self.limit.lock().half_open.remove(&self.number).is_some() && whole
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.limit.lock();
        taken.half_open.remove(&self.number);
        taken.count = taken.count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn oldest_half_open_connection_is_closed_for_a_new_one() {
        let room = ConnectionLimit::new(2);
        let (mut first, mut second) = (room.enter().unwrap(), room.enter().unwrap());
        assert_eq!(first.unless_given_up(ready(1)).await, Some(1));
        let third = room.enter();
        assert!(third.is_some());
        assert_eq!(second.unless_given_up(pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn served_connections_keep_their_permits() {
        let room = ConnectionLimit::new(1);
        let mut only = room.enter().unwrap();
        only.unless_given_up(ready(())).await;
        assert!(room.enter().is_none());
        drop(only);
        assert!(room.enter().is_some());
    }

    #[tokio::test]
    async fn full_share_evicts_its_own_half_open_connections() {
        let limit = ConnectionLimit::new(3);
        let (share, other) = (limit.share(1), limit.share(2));
        let mut others = other.enter().unwrap();
        let mut first = share.enter().unwrap();
        // The evicted connection has not ended yet: the new one is admitted all the same.
        let mut second = share.enter().unwrap();
        assert_eq!(first.unless_given_up(pending::<()>()).await, None);
        assert_eq!(second.unless_given_up(ready(1)).await, Some(1));
        assert_eq!(others.unless_given_up(ready(1)).await, Some(1));
        assert!(share.enter().is_none(), "the share is full of served connections");
        drop(first);
        assert!(other.enter().is_some());
    }

    #[test]
    fn half_of_the_descriptors_are_for_upstreams() {
        assert_eq!(ConnectionLimit::for_descriptors(1128).most, 500);
        assert_eq!(ConnectionLimit::for_descriptors(0).most, 1);
        assert_eq!(ConnectionLimit::for_descriptors(u64::MAX).most, MAX_CONNECTIONS);
    }
}
