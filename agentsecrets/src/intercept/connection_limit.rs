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
    room: Arc<ConnectionLimit>,
    number: u64,
    given_up: Option<oneshot::Receiver<()>>,
}

impl ConnectionLimit {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
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
        taken.count += 1;
        taken.next += 1;
        let number = taken.next;
        let (tell, told) = oneshot::channel();
        taken.half_open.insert(number, tell);
        Some(ConnectionPermit { room: self.clone(), number, given_up: Some(told) })
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
        let opened = tokio::select! {
            opened = opening => Some(opened),
            _ = given_up => None,
        };
        // Its place may have been given away in this very moment.
        self.room.lock().half_open.remove(&self.number).and(opened)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
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

    #[test]
    fn half_of_the_descriptors_are_for_upstreams() {
        assert_eq!(ConnectionLimit::for_descriptors(1128).most, 500);
        assert_eq!(ConnectionLimit::for_descriptors(0).most, 1);
        assert_eq!(ConnectionLimit::for_descriptors(u64::MAX).most, MAX_CONNECTIONS);
    }
}
