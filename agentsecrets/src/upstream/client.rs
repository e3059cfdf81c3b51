//! Sends a request to the server for which it was judged, and opens passthrough tunnels. The name that was
//! judged is the one that is resolved and that the certificate must prove. Redirects are not followed. Errors name
//! the host and the reason, never a query or a header's value.

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
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::pool::{Connection, Http1, Http2, MAX_CONCURRENT_STREAMS, Pool, PoolKey, ResponseHooks};
use super::progress::Progress;
use crate::dns::resolver::Resolver;
use crate::inject::{Outbound, TlsRequirements};
use crate::intercept::Destination;
use crate::policy::connection::PassthroughPermit;
use crate::policy::private_addresses::PrivateAddresses;
use crate::types::body::{self, Body};
use crate::types::hop_by_hop;
use crate::types::host::Host;
use crate::types::rejection::Rejection;
use crate::types::target::Scheme;
use crate::upstream::connect::{self, MaybeTlsStream};
use crate::upstream::failure;
use crate::upstream::normalize;
use crate::upstream::ssrf_guard::{self, BlockedAddress};
use crate::upstream::tls_configs::{Fingerprint, TlsConfigs};

/// The flow-control window of one HTTP/2 stream, in bytes. The connection's window holds that of all of its
/// streams, so that an agent that does not read one of them stalls no other.
const STREAM_WINDOW: u32 = 512 * 1024;
/// The idle time after which TCP probes the server of a tunnel.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// The HTTP client for upstream servers. All agents share it; it keeps their connections apart.
pub struct Upstream {
    tls_configs: TlsConfigs,
    resolver: Arc<Resolver>,
    own_listeners: Arc<[SocketAddr]>,
    timeouts: UpstreamTimeouts,
    pool: Arc<Pool>,
}

/// Time limits for upstream servers.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamTimeouts {
    /// From name resolution to the end of the TLS handshake.
    pub connect: Duration,
    /// From the last byte of the request that the server took to the head of its response.
    pub response: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), response: Duration::from_secs(60) }
    }
}

impl Upstream {
    /// Takes the default configuration of `tls::verify::client_config`. `own_listeners` are never dialled.
    pub fn new(
        default_tls: Arc<ClientConfig>,
        resolver: Arc<Resolver>,
        own_listeners: impl Into<Arc<[SocketAddr]>>,
    ) -> Self {
        Self {
            tls_configs: TlsConfigs::new(default_tls),
            resolver,
            own_listeners: own_listeners.into(),
            timeouts: UpstreamTimeouts::default(),
            pool: Arc::default(),
        }
    }

    /// Replaces the default time limits.
    pub fn with_timeouts(mut self, timeouts: UpstreamTimeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    #[cfg(test)]
    pub(super) fn with_own_listeners(mut self, own_listeners: impl Into<Arc<[SocketAddr]>>) -> Self {
        self.own_listeners = own_listeners.into();
        self
    }

    /// Sends `outbound` and returns the response as soon as its head has arrived. Dropping the response body
    /// before its end closes the connection, or resets the stream. A `101` response carries
    /// `hyper::upgrade::OnUpgrade` in its extensions.
    pub async fn send(&self, outbound: Outbound) -> Result<Response<Body>, Rejection> {
        let (isolation, target) = (outbound.isolation().clone(), outbound.target().clone());
        let requirements = outbound.tls().clone();
        let key = PoolKey { isolation, target, tls: Fingerprint::of(&requirements) };
        let private = outbound.private_addresses().clone();
        let mut request = outbound.into_request();
        if request.method() == Method::CONNECT {
            return Err(failure::connect_method(&key.target.host));
        }
        let http1_only = hop_by_hop::remove_hop_by_hop(request.headers_mut()).is_some_and(|upgrade| {
            hop_by_hop::request_upgrade(request.headers_mut(), upgrade);
            true
        });
        let progress = Progress::default();
        let mut request = request.map(|body| progress.track(body));
        loop {
            let may_use = |ip| self.may_dial(ip, &private, key.target.port).is_ok();
            let idle = self.pool.take(&key, http1_only, may_use);
            let Some(connection) = wait_ready(idle).await else { break };
            let copy = retry_copy(&request);
            match self.send_on(connection, request, &key, &progress).await {
                Ok(response) => return Ok(response),
                // Nothing of it was written, so that it is not sent twice.
                Err(SendError::Unsent(unsent, _)) => request = *unsent,
                Err(SendError::Rejected(rejection)) => return Err(rejection),
                // The server may have closed the connection while we wrote.
                Err(SendError::Broken(_)) if let Some(copy) = copy => {
                    request = copy;
                    break;
                }
                Err(SendError::Broken(error)) => {
                    return Err(failure::no_response(&key.target.host, &error, &progress));
                }
            }
        }
        let connection = self.connect(&key, &requirements, &private, http1_only).await?;
        match self.send_on(connection, request, &key, &progress).await {
            Ok(response) => Ok(response),
            Err(SendError::Rejected(rejection)) => Err(rejection),
            Err(SendError::Unsent(_, error) | SendError::Broken(error)) => {
                Err(failure::no_response(&key.target.host, &error, &progress))
            }
        }
    }

    /// Closes the idle connections of `session`. Those in use end with their response bodies.
    pub fn end_session(&self, session: &str) {
        self.pool.end_session(session);
    }

    /// Opens a passthrough connection to `destination`, which must be an address of the tunnel's host, or that
    /// host itself.
    pub async fn open_tunnel(
        &self,
        tunnel: &PassthroughPermit,
        destination: &Destination,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Rejection> {
        let connect_timeout = self.timeouts.connect;
        let late = |_| failure::connect_timeout(tunnel.host(), connect_timeout);
        tokio::time::timeout(connect_timeout, self.connect_tunnel(tunnel, destination))
            .await
            .map_err(late)?
            .map_err(|rejection| rejection.by_rule(&**tunnel.rule()))
    }

    async fn connect_tunnel(
        &self,
        tunnel: &PassthroughPermit,
        destination: &Destination,
    ) -> Result<TcpStream, Rejection> {
        let host = tunnel.host();
        let unresolved = |error| failure::unresolved(host, &error);
        let ips = match destination {
            Destination::Named(name, _) if name == host => {
                self.resolver.lookup(host).await.map_err(unresolved)?
            }
            Destination::Named(..) => return Err(failure::not_of_host(host, "the name that was asked for")),
            Destination::Address(address) => {
                let ip = address.ip().to_canonical();
                if !self.resolver.has_address(host, ip).await.map_err(unresolved)? {
                    return Err(failure::not_of_host(host, "the address that was dialled"));
                }
                vec![ip]
            }
        };
        let stream = self.dial(host, &ips, tunnel.port(), tunnel.private()).await?;
        // Without keepalive, a vanished server is only noticed later.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME));
        Ok(stream)
    }

    fn may_dial(&self, ip: IpAddr, private: &PrivateAddresses, port: u16) -> Result<(), BlockedAddress> {
        ssrf_guard::check_address(ip, private, &self.own_listeners, port)
    }

    /// Connects to the first of those addresses of `host` that may be dialled.
    async fn dial(
        &self,
        host: &Host,
        ips: &[IpAddr],
        port: u16,
        private: &PrivateAddresses,
    ) -> Result<TcpStream, Rejection> {
        let checked = ips.iter().map(|ip| (*ip, self.may_dial(*ip, private, port)));
        let (allowed, blocked): (Vec<_>, Vec<_>) = checked.partition(|(_, verdict)| verdict.is_ok());
        if allowed.is_empty() {
            return Err(failure::blocked(host, blocked.into_iter().filter_map(|(_, verdict)| verdict.err())));
        }
        let addresses: Vec<_> = allowed.iter().map(|(ip, _)| SocketAddr::new(*ip, port)).collect();
        connect::dial(&addresses).await.map_err(|error| failure::unreachable(host, &error))
    }

    async fn send_on(
        &self,
        connection: Connection,
        mut request: Request<Body>,
        key: &PoolKey,
        progress: &Progress,
    ) -> Result<Response<Body>, SendError> {
        let host = &key.target.host;
        let late = || SendError::Rejected(failure::response_timeout(host, self.timeouts.response));
        progress.restart();
        let response = match connection {
            Connection::Http1(mut http1) => {
                let asks_upgrade = request.headers().contains_key(UPGRADE);
                normalize::for_http1(&mut request, &key.target).map_err(SendError::Rejected)?;
                let sent = http1.sender.try_send_request(request);
                let response = progress.timeout(self.timeouts.response, sent).await.ok_or_else(late)??;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    if !asks_upgrade {
                        return Err(SendError::Rejected(failure::unexpected_upgrade(host)));
                    }
                    return Ok(response.map(|_| body::empty()));
                }
                let (pool, key) = (self.pool.clone(), key.clone());
                response.map(|body| ResponseHooks::for_http1(body, pool, key, http1))
            }
            Connection::Http2(mut http2) => {
                normalize::for_http2(&mut request, &key.target).map_err(SendError::Rejected)?;
                let sent = http2.sender.try_send_request(request);
                let response = progress.timeout(self.timeouts.response, sent).await.ok_or_else(late)??;
                let length = response.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                response.map(|body| ResponseHooks::for_http2(body, http2, length, progress.clone()))
            }
        };
        let mut response = response.map(BodyExt::boxed_unsync);
        hop_by_hop::remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    async fn connect(
        &self,
        key: &PoolKey,
        requirements: &TlsRequirements,
        private: &PrivateAddresses,
        http1_only: bool,
    ) -> Result<Connection, Rejection> {
        let connecting = async {
            let Some(lock) = self.pool.connect_lock(key).filter(|_| !http1_only) else {
                return self.connect_now(key, requirements, private, http1_only).await;
            };
            let guard = lock.lock_owned().await;
            // The holder before us may have opened a shared connection, or learned that each
            // request needs a connection of its own.
            let may_use = |ip| self.may_dial(ip, private, key.target.port).is_ok();
            if let Some(shared) = wait_ready(self.pool.take(key, false, may_use)).await {
                return Ok(shared);
            }
            let _guard = self.pool.connect_lock(key).map(|_| guard);
            self.connect_now(key, requirements, private, false).await
        };
        match tokio::time::timeout(self.timeouts.connect, connecting).await {
            Ok(connection) => connection,
            Err(_) => Err(failure::connect_timeout(&key.target.host, self.timeouts.connect)),
        }
    }

    async fn connect_now(
        &self,
        key: &PoolKey,
        requirements: &TlsRequirements,
        private: &PrivateAddresses,
        http1_only: bool,
    ) -> Result<Connection, Rejection> {
        let (host, port) = (&key.target.host, key.target.port);
        let resolved = self.resolver.lookup(host).await;
        let ips = resolved.map_err(|error| failure::unresolved(host, &error))?;
        let tcp = self.dial(host, &ips, port, private).await?;
        let stream = match key.target.scheme {
            Scheme::Http => MaybeTlsStream::Plain(tcp),
            Scheme::Https => {
                let config = self.tls_configs.get(requirements)?.client_config(http1_only);
                let secured = connect::tls_handshake(tcp, host, config).await;
                secured.map_err(|error| failure::unreachable(host, &error))?
            }
        };
        if !http1_only {
            self.pool.record_protocol(&key.target, stream.is_http2());
        }
        let peer = stream.peer().map_err(|error| failure::connection_broken(host, &error))?;
        let connected = if stream.is_http2() {
            handshake_http2(stream, peer)
                .await
                .map(|http2| Connection::Http2(self.pool.share(key.clone(), http2)))
        } else {
            handshake_http1(stream, peer).await.map(Connection::Http1)
        };
        connected.map_err(|error| failure::connection_broken(host, &error))
    }
}

/// Why a request got no response.
enum SendError {
    /// Nothing was written; the request can be sent again.
    Unsent(Box<Request<Body>>, hyper::Error),
    /// Something may have been written.
    Broken(hyper::Error),
    /// The agent gets this rejection.
    Rejected(Rejection),
}

impl From<TrySendError<Request<Body>>> for SendError {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request), error.into_error()),
            None => SendError::Broken(error.into_error()),
        }
    }
}

/// The idle connection, once it can take a request. It needs a moment after the end of a response, longer under
/// load. If the server never took the whole of its last request, it can take none.
async fn wait_ready(idle: Option<Connection>) -> Option<Connection> {
    const READY_TIMEOUT: Duration = Duration::from_millis(100);
    match idle? {
        Connection::Http1(mut http1) if !http1.sender.is_ready() => {
            let ready = tokio::time::timeout(READY_TIMEOUT, http1.sender.ready()).await;
            matches!(ready, Ok(Ok(()))).then_some(Connection::Http1(http1))
        }
        connection => Some(connection),
    }
}

/// A copy of the request, if it has a safe method and no body.
fn retry_copy(request: &Request<Body>) -> Option<Request<Body>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn handshake_http1(stream: MaybeTlsStream, peer: SocketAddr) -> hyper::Result<Http1> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(64 * 1024);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // `send_on` gets its errors.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Http1 { sender, peer })
}

async fn handshake_http2(stream: MaybeTlsStream, peer: SocketAddr) -> hyper::Result<Http2> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * MAX_CONCURRENT_STREAMS as u32)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(128 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Http2 { sender, peer, in_use: Arc::new(()) })
}
