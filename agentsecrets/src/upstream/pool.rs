//! The connection pool. A connection is reused only by the same agent's session with the same credentials to the
//! same target: two agents, or two secrets, never share one. The pool is bounded in number and in time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::progress::Progress;
use crate::inject::Isolation;
use crate::types::body::{Body, BodyError, BodyHooks, HookedBody, PolledFrame};
use crate::types::sync::MutexExt;
use crate::types::target::Target;
use crate::upstream::tls_configs::Fingerprint;

/// The number of idle HTTP/1.1 connections for one key.
const MAX_IDLE_PER_KEY: usize = 128;
/// The number of requests on one HTTP/2 connection; the next one gets a new connection.
pub(super) const MAX_CONCURRENT_STREAMS: usize = 100;
/// The number of idle connections in all.
const MAX_IDLE: usize = 256;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// The number of ended sessions that are remembered. A session's last response ends long before it is forgotten.
const MAX_ENDED_SESSIONS: usize = 1024;
const MAX_KNOWN_PROTOCOLS: usize = 1024;

/// Requests with the same key may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) isolation: Isolation,
    pub(super) target: Target,
    pub(super) tls: Fingerprint,
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
    /// Cloned by each request on the connection, so that only an unused connection counts as idle.
    pub(super) in_use: Arc<()>,
}

pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    entries: HashMap<PoolKey, PoolEntry>,
    /// Whether a target was last seen to speak HTTP/2.
    protocols: HashMap<Target, bool>,
    /// Ended sessions. Their connections are not kept, as a response may end after its session.
    ended: HashSet<String>,
    is_sweeping: bool,
}

#[derive(Default)]
struct PoolEntry {
    /// The most recently used one last.
    http1: VecDeque<(Http1, Instant)>,
    http2: Option<(Http2, Instant)>,
    /// Held while connecting to a target that may speak HTTP/2, so that others wait and share the connection.
    connect_lock: Arc<tokio::sync::Mutex<()>>,
}

impl Pool {
    /// Takes a working connection to an address that `may_use` allows.
    pub(super) fn take(
        &self,
        key: &PoolKey,
        http1_only: bool,
        may_use: impl Fn(IpAddr) -> bool,
    ) -> Option<Connection> {
        let mut state = self.lock();
        let entry = state.entries.get_mut(key)?;
        let now = Instant::now();
        if let Some((http2, used)) = &mut entry.http2 {
            if http2.sender.is_closed() {
                entry.http2 = None;
            } else if !http1_only && !http2.is_full() && may_use(http2.peer.ip()) {
                *used = now;
                return Some(Connection::Http2(http2.clone()));
            }
        }
        entry.http1.retain(|(http1, used)| !http1.sender.is_closed() && *used + IDLE_TIMEOUT > now);
        // A connection that was just returned may not be ready yet, while an older one is.
        let ready =
            entry.http1.iter().rposition(|(http1, _)| http1.sender.is_ready() && may_use(http1.peer.ip()));
        let newest = ready.or_else(|| entry.http1.iter().rposition(|(http1, _)| may_use(http1.peer.ip())))?;
        entry.http1.remove(newest).map(|(http1, _)| Connection::Http1(http1))
    }

    /// Keeps `http1`, whose response was read to its end.
    pub(super) fn put(self: &Arc<Self>, key: PoolKey, http1: Http1) {
        if http1.sender.is_closed() {
            return;
        }
        let mut state = self.lock();
        if state.ended.contains(&*key.isolation.session) {
            return;
        }
        let entry = state.entries.entry(key).or_default();
        entry.http1.push_back((http1, Instant::now()));
        if entry.http1.len() > MAX_IDLE_PER_KEY {
            entry.http1.pop_front();
        }
        state.evict_idle();
        self.start_sweeping(&mut state);
    }

    /// Shares the new connection, or returns the one that was shared meanwhile.
    pub(super) fn share(self: &Arc<Self>, key: PoolKey, http2: Http2) -> Http2 {
        let mut state = self.lock();
        if state.ended.contains(&*key.isolation.session) {
            return http2;
        }
        let entry = state.entries.entry(key).or_default();
        if let Some((shared, _)) = &entry.http2
            && !shared.sender.is_closed()
            && !shared.is_full()
            && shared.peer == http2.peer
        {
            return shared.clone();
        }
        entry.http2 = Some((http2.clone(), Instant::now()));
        state.evict_idle();
        self.start_sweeping(&mut state);
        http2
    }

    /// The lock to hold while connecting for `key`; `None` if its target is known to speak HTTP/1.1 only.
    pub(super) fn connect_lock(&self, key: &PoolKey) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut state = self.lock();
        if state.protocols.get(&key.target) == Some(&false) {
            return None;
        }
        Some(state.entries.entry(key.clone()).or_default().connect_lock.clone())
    }

    /// Remembers the protocol of `target`.
    pub(super) fn record_protocol(&self, target: &Target, is_http2: bool) {
        let mut state = self.lock();
        if state.protocols.len() >= MAX_KNOWN_PROTOCOLS {
            state.protocols.clear();
        }
        state.protocols.insert(target.clone(), is_http2);
    }

    /// Drops the idle connections of `session`, and keeps none for it from now on.
    pub(super) fn end_session(&self, session: &str) {
        let mut state = self.lock();
        if state.ended.len() >= MAX_ENDED_SESSIONS {
            state.ended.clear();
        }
        state.ended.insert(session.to_owned());
        state.entries.retain(|key, _| &*key.isolation.session != session);
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock_ignoring_poison()
    }

    fn start_sweeping(self: &Arc<Self>, state: &mut PoolState) {
        if std::mem::replace(&mut state.is_sweeping, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.lock().sweep();
            }
        });
    }
}

impl PoolState {
    fn sweep(&mut self) {
        let now = Instant::now();
        self.entries.retain(|_, entry| {
            entry.http1.retain(|(http1, used)| !http1.sender.is_closed() && *used + IDLE_TIMEOUT > now);
            entry.http2.take_if(|(http2, used)| {
                http2.sender.is_closed() || (http2.is_idle() && *used + IDLE_TIMEOUT <= now)
            });
            !entry.is_empty() || Arc::strong_count(&entry.connect_lock) > 1
        });
    }

    /// Closes the connections that were idle for longest until `MAX_IDLE` are left.
    fn evict_idle(&mut self) {
        let idle = |entry: &PoolEntry| entry.http1.len() + usize::from(entry.idle_http2().is_some());
        let mut excess = self.entries.values().map(idle).sum::<usize>().saturating_sub(MAX_IDLE);
        while excess > 0 {
            let oldest = self.entries.values_mut().min_by_key(|entry| entry.oldest_idle());
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

impl PoolEntry {
    fn is_empty(&self) -> bool {
        self.http1.is_empty() && self.http2.is_none()
    }

    fn idle_http2(&self) -> Option<Instant> {
        self.http2.as_ref().filter(|(http2, _)| http2.is_idle()).map(|(_, used)| *used)
    }

    /// The last use of the connection that was idle for longest; entries without one sort last.
    fn oldest_idle(&self) -> (bool, Option<Instant>) {
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
        Arc::strong_count(&self.in_use) > MAX_CONCURRENT_STREAMS
    }
}

/// A response body. Read to its end, it returns its connection to the pool; dropped earlier, it closes the
/// connection or resets the stream.
pub(super) type ResponseBody = HookedBody<Incoming, ResponseHooks>;

/// The connection of a response.
pub(super) struct ResponseHooks {
    /// The connection to return to the pool.
    http1: Option<(Arc<Pool>, PoolKey, Http1)>,
    http2: Option<Http2Stream>,
}

/// The state of a response over HTTP/2.
struct Http2Stream {
    _in_use: Arc<()>,
    progress: Progress,
    /// The number of bytes still to come, where the server declared a length.
    remaining: Option<u64>,
}

impl ResponseHooks {
    pub(super) fn for_http1(incoming: Incoming, pool: Arc<Pool>, key: PoolKey, http1: Http1) -> ResponseBody {
        let mut hooks = Self { http1: Some((pool, key, http1)), http2: None };
        if http_body::Body::is_end_stream(&incoming) {
            hooks.return_connection();
        }
        HookedBody::new(incoming, hooks)
    }

    pub(super) fn for_http2(
        incoming: Incoming,
        http2: Http2,
        length: Option<u64>,
        progress: Progress,
    ) -> ResponseBody {
        let stream = Http2Stream { _in_use: http2.in_use, progress, remaining: length };
        HookedBody::new(incoming, Self { http1: None, http2: Some(stream) })
    }

    /// Whether a response whose last frame came without the end of its stream is incomplete. A server may end an
    /// early response with `RST_STREAM(NO_ERROR)` while the request is still coming; otherwise it must set
    /// END_STREAM.
    fn is_truncated(&self) -> bool {
        self.http2.as_ref().is_some_and(|stream| {
            stream.remaining.map_or(!stream.progress.is_unfinished(), |remaining| remaining > 0)
        })
    }

    fn return_connection(&mut self) {
        if let Some((pool, key, http1)) = self.http1.take() {
            pool.put(key, http1);
        }
    }
}

impl BodyHooks for ResponseHooks {
    fn on_frame(&mut self, frame: PolledFrame, is_end: bool) -> PolledFrame {
        match &frame {
            None if !is_end && self.is_truncated() => return Some(Err(BodyError::Reset)),
            None => self.return_connection(),
            Some(Ok(frame)) => {
                let read = frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some(remaining) = self.http2.as_mut().and_then(|stream| stream.remaining.as_mut()) {
                    *remaining = remaining.saturating_sub(read);
                }
                if is_end {
                    self.return_connection();
                }
            }
            Some(Err(_)) => self.http1 = None,
        }
        frame
    }
}
