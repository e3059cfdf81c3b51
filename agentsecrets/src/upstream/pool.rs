//! Connections kept for the next request of the same agent's run with the same credentials to the
//! same target, and of no other: two agents, or two secrets, never meet on one connection. Bounded in
//! number and in time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::progress::Progress;
use crate::http::incoming_body;
use crate::inject::Isolation;
use crate::types::body::{Body, BodyError};
use crate::types::target::Target;
use crate::upstream::tls_configs::Fingerprint;

/// How many idle HTTP/1.1 connections are kept for one key.
const PER_KEY: usize = 128;
/// How many requests share one HTTP/2 connection; the next one gets a new connection.
pub(super) const MOST_STREAMS: usize = 100;
/// How many idle connections are kept in all.
const IN_ALL: usize = 256;
/// How long a connection is kept without use.
const IDLE: Duration = Duration::from_secs(90);
/// How often the kept ones are looked through.
const SWEEP: Duration = Duration::from_secs(15);
/// How many ended sessions are remembered; long after its end a session's last answer has ended too.
const ENDED: usize = 1024;
/// How many targets' protocols are remembered.
const PROTOCOLS: usize = 1024;

/// Who may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) isolation: Isolation,
    pub(super) target: Target,
    pub(super) proof: Fingerprint,
}

/// An HTTP/1.1 connection, for one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) peer: SocketAddr,
}

/// An HTTP/2 connection, for many requests at once.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) peer: SocketAddr,
    /// Held by whoever uses the connection, so that only an unused one counts as idle.
    pub(super) in_use: Arc<()>,
}

/// A way to send one request.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// The kept connections.
#[derive(Default)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    /// Whether a target was last seen to speak HTTP/2.
    protocols: HashMap<Target, bool>,
    /// Sessions for which nothing is kept any more, as answers may end after them.
    ended: HashSet<String>,
    is_swept: bool,
}

#[derive(Default)]
struct Entry {
    /// The most recently used one last.
    http1: VecDeque<(Http1, Instant)>,
    http2: Option<(Http2, Instant)>,
    /// Taken by whoever connects to a target that may speak HTTP/2, so that others wait and share.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Pool {
    /// A kept connection that still works, to an address that `may` be used.
    pub(super) fn take(
        &self,
        key: &Key,
        http1_only: bool,
        may: impl Fn(IpAddr) -> bool,
    ) -> Option<Connection> {
        let mut kept = self.lock();
        let entry = kept.entries.get_mut(key)?;
        let now = Instant::now();
        if let Some((http2, used)) = &mut entry.http2 {
            if http2.sender.is_closed() {
                entry.http2 = None;
            } else if !http1_only && !http2.is_full() && may(http2.peer.ip()) {
                *used = now;
                return Some(Connection::Http2(http2.clone()));
            }
        }
        entry.http1.retain(|(http1, used)| !http1.sender.is_closed() && *used + IDLE > now);
        // One that was given back in this very moment may not be ready yet, and an older one be.
        let ready =
            entry.http1.iter().rposition(|(http1, _)| http1.sender.is_ready() && may(http1.peer.ip()));
        let newest = ready.or_else(|| entry.http1.iter().rposition(|(http1, _)| may(http1.peer.ip())))?;
        entry.http1.remove(newest).map(|(http1, _)| Connection::Http1(http1))
    }

    /// Keeps `http1`, whose answer was read to its end.
    pub(super) fn put(self: &Arc<Self>, key: Key, http1: Http1) {
        if http1.sender.is_closed() {
            return;
        }
        let mut kept = self.lock();
        if kept.ended.contains(&*key.isolation.session) {
            return;
        }
        let entry = kept.entries.entry(key).or_default();
        entry.http1.push_back((http1, Instant::now()));
        if entry.http1.len() > PER_KEY {
            entry.http1.pop_front();
        }
        kept.shed();
        self.keep_sweeping(&mut kept);
    }

    /// Shares the new `http2`, or gives back the one that somebody shared meanwhile.
    pub(super) fn share(self: &Arc<Self>, key: Key, http2: Http2) -> Http2 {
        let mut kept = self.lock();
        if kept.ended.contains(&*key.isolation.session) {
            return http2;
        }
        let entry = kept.entries.entry(key).or_default();
        if let Some((shared, _)) = &entry.http2
            && !shared.sender.is_closed()
            && !shared.is_full()
            && shared.peer == http2.peer
        {
            return shared.clone();
        }
        entry.http2 = Some((http2.clone(), Instant::now()));
        kept.shed();
        self.keep_sweeping(&mut kept);
        http2
    }

    /// What connecting for `key` must wait for: nothing if its target is known to speak HTTP/1.1 only.
    pub(super) fn turn(&self, key: &Key) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut kept = self.lock();
        if kept.protocols.get(&key.target) == Some(&false) {
            return None;
        }
        Some(kept.entries.entry(key.clone()).or_default().turn.clone())
    }

    /// Remembers what `target` speaks.
    pub(super) fn learn(&self, target: &Target, is_http2: bool) {
        let mut kept = self.lock();
        if kept.protocols.len() >= PROTOCOLS {
            kept.protocols.clear();
        }
        kept.protocols.insert(target.clone(), is_http2);
    }

    /// Drops what is kept for `session`, and keeps nothing for it from now on.
    pub(super) fn end_session(&self, session: &str) {
        let mut kept = self.lock();
        if kept.ended.len() >= ENDED {
            kept.ended.clear();
        }
        kept.ended.insert(session.to_owned());
        kept.entries.retain(|key, _| &*key.isolation.session != session);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_sweeping(self: &Arc<Self>, kept: &mut Kept) {
        if std::mem::replace(&mut kept.is_swept, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.lock().sweep();
            }
        });
    }
}

impl Kept {
    fn sweep(&mut self) {
        let now = Instant::now();
        self.entries.retain(|_, entry| {
            entry.http1.retain(|(http1, used)| !http1.sender.is_closed() && *used + IDLE > now);
            entry.http2.take_if(|(http2, used)| {
                http2.sender.is_closed() || (http2.is_idle() && *used + IDLE <= now)
            });
            !entry.is_empty() || Arc::strong_count(&entry.turn) > 1
        });
    }

    /// Closes the connections that were unused for longest until no more than allowed are left.
    fn shed(&mut self) {
        let idle = |entry: &Entry| entry.http1.len() + usize::from(entry.idle_http2().is_some());
        let mut excess = self.entries.values().map(idle).sum::<usize>().saturating_sub(IN_ALL);
        while excess > 0 {
            let oldest = self.entries.values_mut().min_by_key(|entry| entry.oldest());
            let Some(entry) = oldest else { return };
            match (entry.http1.front().map(|(_, used)| *used), entry.idle_http2()) {
                (Some(one), Some(two)) if one <= two => drop(entry.http1.pop_front()),
                (Some(_), None) => drop(entry.http1.pop_front()),
                (_, Some(_)) => entry.http2 = None,
                (None, None) => return,
            }
            excess -= 1;
        }
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.http1.is_empty() && self.http2.is_none()
    }

    fn idle_http2(&self) -> Option<Instant> {
        self.http2.as_ref().filter(|(http2, _)| http2.is_idle()).map(|(_, used)| *used)
    }

    /// When the idle connection was used that was unused for longest; entries without one come last.
    fn oldest(&self) -> (bool, Option<Instant>) {
        let http1 = self.http1.front().map(|(_, used)| *used);
        let oldest = [http1, self.idle_http2()].into_iter().flatten().min();
        (oldest.is_none(), oldest)
    }
}

impl Http2 {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.in_use) == 1
    }

    fn is_full(&self) -> bool {
        Arc::strong_count(&self.in_use) > MOST_STREAMS
    }
}

/// The body of an answer. Read to its end, it gives its connection back; dropped before, it closes
/// the connection or resets the stream.
pub(super) struct Answer {
    incoming: Incoming,
    /// What to give back, and whereto.
    http1: Option<(Arc<Pool>, Key, Http1)>,
    http2: Option<Stream>,
}

/// What an answer over HTTP/2 is held to.
struct Stream {
    _in_use: Arc<()>,
    progress: Progress,
    /// How many bytes are still to come, where the server said.
    missing: Option<u64>,
}

impl Answer {
    pub(super) fn of_http1(incoming: Incoming, pool: Arc<Pool>, key: Key, http1: Http1) -> Self {
        let mut answer = Self { incoming, http1: Some((pool, key, http1)), http2: None };
        answer.give_back_at_end();
        answer
    }

    pub(super) fn of_http2(
        incoming: Incoming,
        http2: Http2,
        length: Option<u64>,
        progress: Progress,
    ) -> Self {
        let stream = Stream { _in_use: http2.in_use, progress, missing: length };
        Self { incoming, http1: None, http2: Some(stream) }
    }

    /// Whether the end of this answer is none. A server may end an early answer with a reset that is no
    /// error, while the request is still coming; else it has to say that it is done.
    fn is_cut(&self) -> bool {
        let Some(stream) = &self.http2 else { return false };
        incoming_body::is_cut(&self.incoming)
            && stream.missing.map_or(!stream.progress.is_unfinished(), |missing| missing > 0)
    }

    fn give_back_at_end(&mut self) {
        if http_body::Body::is_end_stream(&self.incoming) {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some((pool, key, http1)) = self.http1.take() {
            pool.put(key, http1);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None if self.is_cut() => return Poll::Ready(Some(Err(BodyError::Cut))),
            None => self.give_back(),
            Some(Ok(frame)) => {
                let read = frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some(missing) = self.http2.as_mut().and_then(|stream| stream.missing.as_mut()) {
                    *missing = missing.saturating_sub(read);
                }
                self.give_back_at_end();
            }
            Some(Err(_)) => self.http1 = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Peer)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.incoming)
    }
}
