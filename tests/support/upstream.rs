//! A real test server: HTTPS (HTTP/1.1 and HTTP/2 by ALPN) or plain HTTP, in this or another network
//! namespace. It records every request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::certificate::Authority;
use super::endpoints::{self, Body, Peer, ReceivedRequest};
use super::netns::Netns;

/// Configuration of a server.
pub(crate) struct Options<'a> {
    /// The listen address; port 0 for any.
    pub(crate) address: SocketAddr,
    /// The network namespace; none for ours.
    pub(crate) netns: Option<&'a Netns>,
    /// The TLS settings; none for plain HTTP.
    pub(crate) tls: Option<Tls<'a>>,
    /// Tried before the default responses.
    pub(crate) handler: Option<Handler>,
}

/// Custom responses; `None` falls back to the default.
pub(crate) type Handler = Arc<dyn Fn(&ReceivedRequest) -> Option<Response<Body>> + Send + Sync>;

/// TLS settings of a server.
pub(crate) struct Tls<'a> {
    /// The issuer of its certificate.
    pub(crate) authority: &'a Authority,
    /// The certificate's names.
    pub(crate) names: &'a [&'a str],
    pub(crate) is_expired: bool,
    /// ALPN protocols by preference.
    pub(crate) alpn: &'a [&'a str],
    pub(crate) is_tls12_only: bool,
    /// The certificate is issued by an intermediate CA, which is sent last.
    pub(crate) has_intermediate: bool,
    /// Whether clients are asked for a certificate.
    pub(crate) client_auth: Option<ClientAuth>,
}

/// Client certificates from the server's own CA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// A client without one is accepted.
    Optional,
    /// A client without one is refused.
    Required,
}

/// A running server; dropping it ends it.
pub(crate) struct Upstream {
    address: SocketAddr,
    log: Log,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// State shared by a server's connections.
#[derive(Clone)]
struct Service {
    log: Log,
    answers: Option<Handler>,
}

/// The requests so far, with a condition variable for waiters.
type Log = Arc<(Mutex<Vec<ReceivedRequest>>, Condvar)>;

impl<'a> Options<'a> {
    /// HTTPS on loopback, any port, with a valid certificate for `names`, HTTP/2 and HTTP/1.1.
    pub(crate) fn https(authority: &'a Authority, names: &'a [&'a str]) -> Self {
        let alpn = &["h2", "http/1.1"];
        let tls = Tls {
            authority,
            names,
            is_expired: false,
            alpn,
            is_tls12_only: false,
            has_intermediate: false,
            client_auth: None,
        };
        Self { address: ([127, 0, 0, 1], 0).into(), netns: None, tls: Some(tls), handler: None }
    }

    /// Plain HTTP on loopback, any port.
    pub(crate) fn plain() -> Self {
        Self { address: ([127, 0, 0, 1], 0).into(), netns: None, tls: None, handler: None }
    }

    /// Asks for client certificates.
    pub(crate) fn with_client_auth(mut self, how: ClientAuth) -> Self {
        self.tls.as_mut().unwrap().client_auth = Some(how);
        self
    }

    /// Listens at another address.
    pub(crate) fn at(mut self, address: impl Into<SocketAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// Responds by `handler` first.
    pub(crate) fn with_handler(
        mut self,
        answers: impl Fn(&ReceivedRequest) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        self.handler = Some(Arc::new(answers));
        self
    }

    /// Listens in another network namespace.
    pub(crate) fn in_netns(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }
}

impl Upstream {
    /// Starts a server; it listens when this returns.
    pub(crate) fn start(options: Options<'_>) -> Self {
        let log = Log::default();
        let acceptor = options.tls.map(|tls| acceptor(&tls));
        let (address, netns) = (options.address, options.netns.map(Netns::handle));
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let service = Service { log: log.clone(), answers: options.handler };
        let thread = std::thread::spawn(move || {
            if let Some(netns) = netns {
                netns.enter();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener, acceptor, service, counter) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = receiver.recv().expect("the test server could not listen");
        Self { address, log, connections, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every request so far, in order of arrival.
    pub(crate) fn received(&self) -> Vec<ReceivedRequest> {
        self.log.0.lock().unwrap().clone()
    }

    /// The only request so far; fails if there is another.
    pub(crate) fn only_request(&self) -> ReceivedRequest {
        let mut received = self.received();
        assert_eq!(received.len(), 1, "one request was expected: {received:#?}");
        received.remove(0)
    }

    /// Waits for a request for which `holds` returns true.
    pub(crate) fn wait_for(&self, holds: impl Fn(&ReceivedRequest) -> bool) -> ReceivedRequest {
        let (received, more) = &*self.log;
        let none = |received: &mut Vec<ReceivedRequest>| !received.iter().any(&holds);
        let limit = Duration::from_secs(20);
        let (received, _) = more.wait_timeout_while(received.lock().unwrap(), limit, none).unwrap();
        let found = received.iter().find(|received| holds(received)).cloned();
        found.unwrap_or_else(|| panic!("the request that was waited for did not come: {received:#?}"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor(tls: &Tls<'_>) -> TlsAcceptor {
    let names: Vec<String> = tls.names.iter().map(ToString::to_string).collect();
    let leaf = if tls.has_intermediate {
        tls.authority.leaf_with_intermediate(&names)
    } else {
        tls.authority.leaf(&names, tls.is_expired)
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = tls.client_auth.map(|auth| {
        let roots = Arc::new(tls.authority.roots());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let clients = if auth == ClientAuth::Optional { clients.allow_unauthenticated() } else { clients };
        clients.build().unwrap()
    });
    let versions: &[_] = if tls.is_tls12_only { &[&TLS12] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_single_cert(leaf.chain, leaf.key)
        .unwrap();
    config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: Service,
    counter: Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        counter.fetch_add(1, Ordering::SeqCst);
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match acceptor {
                Some(acceptor) => serve_tls(stream, &acceptor, service).await,
                None => serve_http(stream, false, Peer::default(), service).await,
            }
        });
    }
}

async fn serve_tls(stream: TcpStream, acceptor: &TlsAcceptor, service: Service) {
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut stream)) => {
            // Unread data would make the kernel send a reset that overtakes the alert.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return;
        }
    };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let peer = Peer {
        sni: session.server_name().map(str::to_owned),
        version: session.protocol_version().map(|version| format!("{version:?}")),
        certificates: session.peer_certificates().map_or(0, <[_]>::len),
    };
    serve_http(stream, http2, peer, service).await;
}

async fn serve_http<S>(stream: S, http2: bool, peer: Peer, shared: Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (peer, Service { log, answers }) = (peer.clone(), shared.clone());
        async move {
            let received = endpoints::receive(request, peer).await?;
            log.0.lock().unwrap().push(received.clone());
            log.1.notify_all();
            let own = answers.and_then(|answers| answers(&received));
            Ok::<_, hyper::Error>(match own {
                Some(own) => own,
                None => endpoints::respond(&received).await,
            })
        }
    });
    // Clients that disconnect are part of many tests.
    let _ = if http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), service).await
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(TokioIo::new(stream), service).await
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::process::{command, run};

    fn curl(upstream: &Upstream, authority: &Authority, arguments: &[&str], path: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, authority.pem()).unwrap();
        let resolve = format!("api.test:{}:{}", upstream.port(), upstream.address().ip());
        let url = format!("https://api.test:{}{path}", upstream.port());
        let mut curl = command("/usr/bin/curl");
        curl.args(["-sS", "--resolve", &resolve, "--cacert"]).arg(&bundle).args(arguments).arg(url);
        let outcome = run(&mut curl);
        outcome.stdout + &outcome.stderr
    }

    #[test]
    fn test_server_echoes_http1_and_http2() {
        let authority = Authority::new();
        let upstream = Upstream::start(Options::https(&authority, &["api.test"]));
        for version in ["--http1.1", "--http2"] {
            let arguments = [version, "-H", "Authorization: Bearer abc", "-d", "body", "--compressed"];
            let echo = curl(&upstream, &authority, &arguments, "/echo-gzip?a=b");
            for part in ["Bearer abc", "/echo-gzip?a=b", "\"body\":\"body\"", "\"sni\":\"api.test\"", "POST"]
            {
                assert!(echo.contains(part), "{part} in {echo}");
            }
        }
        let versions: Vec<String> = upstream.received().into_iter().map(|got| got.version).collect();
        assert_eq!(versions, ["HTTP/1.1", "HTTP/2.0"]);
        assert_eq!(curl(&upstream, &authority, &["-H", "Authorization: abc"], "/drip"), "abc");
        assert_eq!(curl(&upstream, &authority, &[], "/stream?n=200000").len(), 200_000);
        assert_eq!(curl(&upstream, &authority, &["-d", "12345"], "/upload"), r#"{"bytes":"5"}"#);
    }

    #[test]
    fn bad_certificate_is_rejected() {
        let authority = Authority::new();
        let elsewhere = Upstream::start(Options::https(&authority, &["other.test"]));
        assert!(curl(&elsewhere, &authority, &[], "/").contains("subject name matches"));
        let mut options = Options::https(&authority, &["api.test"]);
        options.tls.as_mut().unwrap().is_expired = true;
        let expired = Upstream::start(options);
        assert!(curl(&expired, &authority, &[], "/").contains("expired"));
    }
}
