//! Local servers for the tests of `upstream`: a certificate authority, servers with its certificates, and a client
//! that resolves the tests' names to loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::{Upstream, UpstreamTimeouts};
use crate::dns::resolver::Resolver;
use crate::inject::{Isolation, Outbound};
use crate::policy::private_addresses::PrivateAddresses;
use crate::tls::verify::client_config;
use crate::types::body::{Body, empty};
use crate::types::target::{Scheme, Target};

/// Signs the certificates of test servers.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("authority")
    }

    pub(super) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn server(&self, name: &str, expired: bool, alpn: &str) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.into()];
        config
    }

    /// A client that trusts this authority, and finds `*.test` names of these tests on loopback.
    pub(super) fn client(&self) -> Upstream {
        client_trusting(&self.root)
    }
}

fn client_trusting(root: &CertificateDer<'static>) -> Upstream {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.keep().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 api.test other.test\n").unwrap();
    let tls = client_config(std::slice::from_ref(root)).unwrap();
    Upstream::new(tls, Arc::new(Resolver::for_test(hosts, None)), [])
}

pub(super) struct ServerKind {
    pub(super) name: &'static str,
    pub(super) alpn: &'static str,
    pub(super) expired: bool,
    /// Whether an HTTP/2 connection ends with GOAWAY after its first request.
    pub(super) has_goaway: bool,
}

pub(super) const HTTP1: ServerKind =
    ServerKind { name: "api.test", alpn: "http/1.1", expired: false, has_goaway: false };
pub(super) const HTTP2: ServerKind =
    ServerKind { name: "api.test", alpn: "h2", expired: false, has_goaway: false };

/// A running server.
pub(super) struct Server {
    pub(super) port: u16,
    connections: Arc<AtomicUsize>,
    goodbyes: tokio::sync::watch::Receiver<usize>,
}

impl Server {
    pub(super) async fn start<F>(
        authority: &Authority,
        kind: ServerKind,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let config = authority.server(kind.name, kind.expired, kind.alpn);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let counter = connections.clone();
        let (ended, goodbyes) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, counter) = (acceptor.clone(), answer.clone(), counter.clone());
                let goodbyes = ended.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    let asked = Arc::new(tokio::sync::Notify::new());
                    let notify = asked.clone();
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        notify.notify_one();
                        async move { Ok::<_, std::convert::Infallible>(answer.await) }
                    });
                    let io = TokioIo::new(stream);
                    if kind.alpn == "h2" {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
                        if kind.has_goaway {
                            tokio::select! {
                                _ = &mut connection => {}
                                () = asked.notified() => connection.as_mut().graceful_shutdown(),
                            }
                        }
                        drop(connection.await);
                        goodbyes.send_modify(|n| *n += 1);
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        drop(builder.serve_connection(io, service).await);
                    }
                });
            }
        });
        Self { port, connections, goodbyes }
    }

    /// Waits until this many HTTP/2 connections have ended.
    pub(super) async fn ended_connections(&self, many: usize) {
        self.goodbyes.clone().wait_for(|n| *n >= many).await.unwrap();
    }

    /// The number of completed TLS handshakes.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(super) fn isolation(session: &str, secrets: &[&str]) -> Isolation {
    Isolation {
        session: session.into(),
        agent: "coder".parse().unwrap(),
        credentials: secrets.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

/// A request of the session `one` to `https://host:port`, where private addresses are allowed.
pub(super) fn to(host: &str, port: u16, request: Request<Body>) -> Outbound {
    let target = Target { scheme: Scheme::Https, host: host.parse().unwrap(), port };
    Outbound::for_test(request, target, PrivateAddresses::Any, isolation("one", &["TOKEN"]))
}

pub(super) fn plain(port: u16, request: Request<Body>) -> Outbound {
    let target = Target { scheme: Scheme::Http, host: "api.test".parse().unwrap(), port };
    Outbound::for_test(request, target, PrivateAddresses::Any, isolation("one", &[]))
}

pub(super) fn get(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(empty()).unwrap()
}

pub(super) const SHORT_TIMEOUTS: UpstreamTimeouts = UpstreamTimeouts {
    connect: std::time::Duration::from_millis(300),
    response: std::time::Duration::from_millis(300),
};
