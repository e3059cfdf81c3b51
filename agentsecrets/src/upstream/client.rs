//! Sends a request to the server it was judged for: the name resolved by us, its addresses checked,
//! the certificate checked against that same name. Redirects are answers like any other. What fails
//! is told by name of host and reason, never with a query or a header's value.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;

use super::pool::{Answer, Connection, Http1, Http2, Key, MOST_STREAMS, Pool};
use super::progress::Progress;
use crate::dns::resolver::Resolver;
use crate::inject::{Outbound, Proof};
use crate::policy::grant::PrivateAddresses;
use crate::types::body::{self, Body};
use crate::types::rejection::Rejection;
use crate::types::target::Scheme;
use crate::upstream::connect::{self, Wire};
use crate::upstream::failure;
use crate::upstream::normalize;
use crate::upstream::ssrf_guard::{self, Refused};
use crate::upstream::tls_configs::{Configs, Fingerprint};

/// How much of an answer one HTTP/2 stream may have in flight, in bytes. A connection lets all of its streams
/// have that, so that an agent that does not read one of them stalls no other.
const STREAM_WINDOW: u32 = 512 * 1024;

/// The way to the real servers. One serves all agents; it keeps their connections apart.
pub struct Upstream {
    configs: Configs,
    resolver: Arc<Resolver>,
    forbidden: Arc<[SocketAddr]>,
    patience: Patience,
    pool: Arc<Pool>,
}

/// How long an upstream may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From resolving its name to the end of the TLS handshake.
    pub connect: Duration,
    /// From the last byte of the request that it took to the head of its answer.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), answer: Duration::from_secs(60) }
    }
}

impl Upstream {
    /// With `tls` of `tls::verify::client_config`; `forbidden` are our own sockets, which are never
    /// dialled.
    pub fn new(
        tls: Arc<ClientConfig>,
        resolver: Arc<Resolver>,
        forbidden: impl Into<Arc<[SocketAddr]>>,
    ) -> Self {
        Self {
            configs: Configs::new(tls),
            resolver,
            forbidden: forbidden.into(),
            patience: Patience::default(),
            pool: Arc::default(),
        }
    }

    /// Waits for upstreams as long as `patience` says.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    #[cfg(test)]
    pub(super) fn forbidding(mut self, forbidden: impl Into<Arc<[SocketAddr]>>) -> Self {
        self.forbidden = forbidden.into();
        self
    }

    /// Sends `outbound` and gives the answer as soon as its head is there. Dropping the answer's body
    /// before its end closes the connection, or resets the stream. A `101` answer carries
    /// `hyper::upgrade::OnUpgrade` in its extensions.
    pub async fn send(&self, outbound: Outbound) -> Result<Response<Body>, Rejection> {
        let (isolation, target) = (outbound.isolation().clone(), outbound.target().clone());
        let proof = outbound.proof().clone();
        let key = Key { isolation, target, proof: Fingerprint::of(&proof) };
        let private = outbound.private().clone();
        let mut request = outbound.into_request();
        if request.method() == Method::CONNECT {
            return Err(failure::connect_method(&key.target.host));
        }
        let http1_only = normalize::take_hop_headers(request.headers_mut()).is_some_and(|upgrade| {
            normalize::ask_upgrade(&mut request, upgrade);
            true
        });
        let progress = Progress::default();
        let mut request = request.map(|body| progress.watch(body));
        loop {
            let kept = self.pool.take(&key, http1_only, |ip| {
                ssrf_guard::check(ip, &private, &self.forbidden, key.target.port).is_ok()
            });
            let Some(connection) = ready(kept).await else { break };
            let again = repeatable(&request);
            match self.exchange(connection, request, &key, &progress).await {
                Ok(answer) => return Ok(answer),
                // Not a byte of it was written, so nothing is said twice.
                Err(Failed::Unsent(unsent, _)) => request = *unsent,
                Err(Failed::Refused(refusal)) => return Err(refusal),
                // The server may have closed it in the very moment in which we wrote.
                Err(Failed::Broken(_)) if let Some(again) = again => {
                    request = again;
                    break;
                }
                Err(Failed::Broken(error)) => {
                    return Err(failure::broken(&key.target.host, &error, &progress));
                }
            }
        }
        let connection = self.connect(&key, &proof, &private, http1_only).await?;
        match self.exchange(connection, request, &key, &progress).await {
            Ok(answer) => Ok(answer),
            Err(Failed::Refused(refusal)) => Err(refusal),
            Err(Failed::Unsent(_, error) | Failed::Broken(error)) => {
                Err(failure::broken(&key.target.host, &error, &progress))
            }
        }
    }

    /// Closes the connections that are kept for `session`. Those in use end with their bodies.
    pub fn end_session(&self, session: &str) {
        self.pool.end_session(session);
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// Whether `ip` may be dialled on `port`.
    pub(super) fn check(&self, ip: IpAddr, private: &PrivateAddresses, port: u16) -> Result<(), Refused> {
        ssrf_guard::check(ip, private, &self.forbidden, port)
    }

    async fn exchange(
        &self,
        connection: Connection,
        mut request: Request<Body>,
        key: &Key,
        progress: &Progress,
    ) -> Result<Response<Body>, Failed> {
        let host = &key.target.host;
        let late = || Failed::Refused(failure::no_answer(host, self.patience.answer));
        progress.restart();
        let answer = match connection {
            Connection::Http1(mut http1) => {
                let asks_upgrade = request.headers().contains_key(UPGRADE);
                normalize::for_http1(&mut request, &key.target).map_err(Failed::Refused)?;
                let sent = http1.sender.try_send_request(request);
                let answer = progress.within(self.patience.answer, sent).await.ok_or_else(late)??;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    if !asks_upgrade {
                        return Err(Failed::Refused(failure::switched(host)));
                    }
                    return Ok(answer.map(|_| body::empty()));
                }
                let (pool, key) = (self.pool.clone(), key.clone());
                answer.map(|body| Answer::of_http1(body, pool, key, http1))
            }
            Connection::Http2(mut http2) => {
                normalize::for_http2(&mut request, &key.target).map_err(Failed::Refused)?;
                let sent = http2.sender.try_send_request(request);
                let answer = progress.within(self.patience.answer, sent).await.ok_or_else(late)??;
                let length = answer.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                answer.map(|body| Answer::of_http2(body, http2, length, progress.clone()))
            }
        };
        let mut answer = answer.map(BodyExt::boxed_unsync);
        normalize::take_hop_headers(answer.headers_mut());
        Ok(answer)
    }

    async fn connect(
        &self,
        key: &Key,
        proof: &Proof,
        private: &PrivateAddresses,
        http1_only: bool,
    ) -> Result<Connection, Rejection> {
        let connecting = async {
            let Some(turn) = self.pool.turn(key).filter(|_| !http1_only) else {
                return self.connect_now(key, proof, private, http1_only).await;
            };
            let turn = turn.lock_owned().await;
            // Whoever had the turn before may have connected for us all, or learned that each
            // request needs a connection of its own.
            let may = |ip| ssrf_guard::check(ip, private, &self.forbidden, key.target.port).is_ok();
            if let Some(shared) = ready(self.pool.take(key, false, may)).await {
                return Ok(shared);
            }
            let _turn = self.pool.turn(key).map(|_| turn);
            self.connect_now(key, proof, private, false).await
        };
        match tokio::time::timeout(self.patience.connect, connecting).await {
            Ok(connection) => connection,
            Err(_) => Err(failure::no_connection(&key.target.host, self.patience.connect)),
        }
    }

    async fn connect_now(
        &self,
        key: &Key,
        proof: &Proof,
        private: &PrivateAddresses,
        http1_only: bool,
    ) -> Result<Connection, Rejection> {
        let (host, port) = (&key.target.host, key.target.port);
        let resolved = self.resolver.lookup(host).await;
        let ips = resolved.map_err(|error| failure::unresolved(host, &error))?;
        let judged = ips.iter().map(|ip| (*ip, ssrf_guard::check(*ip, private, &self.forbidden, port)));
        let (good, bad): (Vec<_>, Vec<_>) = judged.partition(|(_, verdict)| verdict.is_ok());
        if good.is_empty() {
            return Err(failure::guarded(host, bad.into_iter().filter_map(|(_, bad)| bad.err())));
        }
        let addresses: Vec<_> = good.iter().map(|(ip, _)| SocketAddr::new(*ip, port)).collect();
        let unreachable = |error| failure::unreachable(host, &error);
        let stream = connect::dial(&addresses).await.map_err(unreachable)?;
        let wire = match key.target.scheme {
            Scheme::Http => Wire::Plain(stream),
            Scheme::Https => {
                let tls = self.configs.of(proof, host)?.offering(http1_only);
                connect::secure(stream, host, tls).await.map_err(unreachable)?
            }
        };
        if !http1_only {
            self.pool.learn(&key.target, wire.is_http2());
        }
        let peer = wire.peer().map_err(|error| failure::cut(host, &error))?;
        let made = if wire.is_http2() {
            speak_http2(wire, peer).await.map(|http2| Connection::Http2(self.pool.share(key.clone(), http2)))
        } else {
            speak_http1(wire, peer).await.map(Connection::Http1)
        };
        made.map_err(|error| failure::cut(host, &error))
    }
}

/// Why an exchange came to nothing.
enum Failed {
    /// Nothing was written, and here is the request.
    Unsent(Box<Request<Body>>, hyper::Error),
    /// Something may have been written.
    Broken(hyper::Error),
    /// It is decided what the agent is told.
    Refused(Rejection),
}

impl From<TrySendError<Request<Body>>> for Failed {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        match error.take_message() {
            Some(request) => Failed::Unsent(Box::new(request), error.into_error()),
            None => Failed::Broken(error.into_error()),
        }
    }
}

/// The kept connection once it takes a request. Just after an answer's end it needs a moment, which is longer under
/// load; one whose server never took the whole of its last request takes none.
async fn ready(kept: Option<Connection>) -> Option<Connection> {
    const MOMENT: Duration = Duration::from_millis(100);
    match kept? {
        Connection::Http1(mut http1) if !http1.sender.is_ready() => {
            let ready = tokio::time::timeout(MOMENT, http1.sender.ready()).await;
            matches!(ready, Ok(Ok(()))).then_some(Connection::Http1(http1))
        }
        connection => Some(connection),
    }
}

/// The same request once more, if the server may see it twice without harm.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

async fn speak_http1(wire: Wire, peer: SocketAddr) -> hyper::Result<Http1> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(64 * 1024);
    let (sender, connection) = builder.handshake(TokioIo::new(wire)).await?;
    // Its errors reach whoever sent a request.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Http1 { sender, peer })
}

async fn speak_http2(wire: Wire, peer: SocketAddr) -> hyper::Result<Http2> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * MOST_STREAMS as u32)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(128 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let (sender, connection) = builder.handshake(TokioIo::new(wire)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Http2 { sender, peer, in_use: Arc::new(()) })
}
