//! A real server for the tests: HTTPS (HTTP/1.1 and HTTP/2 by ALPN) or plain HTTP, on an address of this
//! machine or of another network namespace, keeping every request it gets.

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
use super::endpoints::{self, Body, Peer, Received};
use super::netns::Netns;

/// What kind of server.
pub(crate) struct Options<'a> {
    /// Where it listens; port 0 for any.
    pub(crate) address: SocketAddr,
    /// The namespace it lives in; none for our own.
    pub(crate) netns: Option<&'a Netns>,
    /// Its TLS; none for plain HTTP.
    pub(crate) tls: Option<Tls<'a>>,
    /// What it answers where this has an answer, instead of what it always does.
    pub(crate) answers: Option<Answers>,
}

/// Answers of a server that speaks some protocol of its own.
pub(crate) type Answers = Arc<dyn Fn(&Received) -> Option<Response<Body>> + Send + Sync>;

/// What it shows to TLS clients.
pub(crate) struct Tls<'a> {
    /// Who signed its certificate.
    pub(crate) authority: &'a Authority,
    /// The names that the certificate proves.
    pub(crate) names: &'a [&'a str],
    /// Whether the certificate is out of date.
    pub(crate) expired: bool,
    /// What it offers by ALPN, best first.
    pub(crate) alpn: &'a [&'a str],
    /// Whether it speaks nothing newer than TLS 1.2.
    pub(crate) old: bool,
    /// Whether its certificate stands under an authority between, which it sends last.
    pub(crate) below: bool,
    /// Whether it asks clients for a certificate, and whether they must show one.
    pub(crate) clients: Option<Asked>,
}

/// How a server asks its clients for a certificate of its own authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It goes on without.
    Politely,
    /// It refuses those who have none.
    Firmly,
}

/// A running server; dropping it ends it.
pub(crate) struct Upstream {
    address: SocketAddr,
    log: Log,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a server's connections share.
#[derive(Clone)]
struct Service {
    log: Log,
    answers: Option<Answers>,
}

/// The requests so far, and who waits for more.
type Log = Arc<(Mutex<Vec<Received>>, Condvar)>;

impl<'a> Options<'a> {
    /// HTTPS on loopback, any port, with a good certificate for `names`, HTTP/2 and HTTP/1.1.
    pub(crate) fn https(authority: &'a Authority, names: &'a [&'a str]) -> Self {
        let alpn = &["h2", "http/1.1"];
        let tls = Tls { authority, names, expired: false, alpn, old: false, below: false, clients: None };
        Self { address: ([127, 0, 0, 1], 0).into(), netns: None, tls: Some(tls), answers: None }
    }

    /// Plain HTTP on loopback, any port.
    pub(crate) fn plain() -> Self {
        Self { address: ([127, 0, 0, 1], 0).into(), netns: None, tls: None, answers: None }
    }

    /// The same server, asking for client certificates.
    pub(crate) fn asking(mut self, how: Asked) -> Self {
        self.tls.as_mut().unwrap().clients = Some(how);
        self
    }

    /// The same server at another address.
    pub(crate) fn at(mut self, address: impl Into<SocketAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// The same server with answers of its own.
    pub(crate) fn answering(
        mut self,
        answers: impl Fn(&Received) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        self.answers = Some(Arc::new(answers));
        self
    }

    /// The same server in another namespace.
    pub(crate) fn inside(mut self, netns: &'a Netns) -> Self {
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
        let (tell, told) = std::sync::mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let service = Service { log: log.clone(), answers: options.answers };
        let thread = std::thread::spawn(move || {
            if let Some(netns) = netns {
                netns.enter();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener, acceptor, service, counter) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = told.recv().expect("the test server could not listen");
        Self { address, log, connections, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections reached it so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every request so far, in the order of their arrival.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.log.0.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Received {
        let mut received = self.received();
        assert_eq!(received.len(), 1, "one request was expected: {received:#?}");
        received.remove(0)
    }

    /// Waits until a request is here for which `holds` does, and returns it.
    pub(crate) fn wait_for(&self, holds: impl Fn(&Received) -> bool) -> Received {
        let (received, more) = &*self.log;
        let none = |received: &mut Vec<Received>| !received.iter().any(&holds);
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
    let leaf =
        if tls.below { tls.authority.leaf_below(&names) } else { tls.authority.leaf(&names, tls.expired) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = tls.clients.map(|asked| {
        let roots = Arc::new(tls.authority.roots());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let clients = if asked == Asked::Politely { clients.allow_unauthenticated() } else { clients };
        clients.build().unwrap()
    });
    let versions: &[_] = if tls.old { &[&TLS12] } else { &[&TLS13, &TLS12] };
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
                Some(acceptor) => secure(stream, &acceptor, service).await,
                None => converse(stream, false, Peer::default(), service).await,
            }
        });
    }
}

async fn secure(stream: TcpStream, acceptor: &TlsAcceptor, service: Service) {
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut stream)) => {
            // With what it did not read a server's end would overtake its alert.
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
    converse(stream, http2, peer, service).await;
}

async fn converse<S>(stream: S, http2: bool, peer: Peer, shared: Service)
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
                None => endpoints::answer(&received).await,
            })
        }
    });
    // A peer that breaks off is part of many tests.
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
    use crate::support::process::{command, finish};

    fn curl(upstream: &Upstream, authority: &Authority, arguments: &[&str], path: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, authority.pem()).unwrap();
        let resolve = format!("api.test:{}:{}", upstream.port(), upstream.address().ip());
        let url = format!("https://api.test:{}{path}", upstream.port());
        let mut curl = command("/usr/bin/curl");
        curl.args(["-sS", "--resolve", &resolve, "--cacert"]).arg(&bundle).args(arguments).arg(url);
        let outcome = finish(&mut curl);
        outcome.stdout + &outcome.stderr
    }

    #[test]
    fn the_test_server_speaks_both_versions_and_repeats_what_it_gets() {
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
    fn a_bad_certificate_is_bad() {
        let authority = Authority::new();
        let elsewhere = Upstream::start(Options::https(&authority, &["other.test"]));
        assert!(curl(&elsewhere, &authority, &[], "/").contains("subject name matches"));
        let mut options = Options::https(&authority, &["api.test"]);
        options.tls.as_mut().unwrap().expired = true;
        let expired = Upstream::start(options);
        assert!(curl(&expired, &authority, &[], "/").contains("expired"));
    }
}
