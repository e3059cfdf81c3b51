//! The API of the demo: an HTTPS server on loopback that repeats the credential of each request in its response.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{ServerCertificate, TestAuthority};

/// An address of this machine alone, where nothing else listens.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 65, 83, 1));

/// The size of a response to a path that ends in `/large`, in bytes.
const LARGE: usize = 1 << 20;

/// The running API.
pub(crate) struct Api {
    log: Log,
    authority: String,
}

/// The credential of every request, in the order of their arrival.
type Log = Arc<Mutex<Vec<String>>>;

impl Api {
    /// Starts it on port 443 for these names, and on port 80 without TLS, until the program ends.
    pub(crate) fn start(names: &[&str]) -> Result<Self> {
        let authority = TestAuthority::new("AgentSecrets demo authority")?;
        let ServerCertificate { certificate, key } = authority.issue(names)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow!(error))?;
        let mut tls = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));

        let (secure, plain) = (listen(443)?, listen(80)?);
        let log = Log::default();
        let served = log.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::join!(serve(secure, Some(acceptor), served.clone()), serve(plain, None, served))
            })
        });
        Ok(Self { log, authority: authority.pem() })
    }

    /// The address of its names.
    pub(crate) fn address(&self) -> IpAddr {
        ADDRESS
    }

    /// The certificate of its authority, in PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The credential of every request so far.
    pub(crate) fn received(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((ADDRESS, port));
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, log: Log) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, log) = (acceptor.clone(), log.clone());
        tokio::spawn(serve_connection(stream, acceptor, log));
    }
}

async fn serve_connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, log: Log) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let log = log.clone();
        async move {
            while let Some(Ok(_)) = request.body_mut().frame().await {}
            Ok::<_, Infallible>(respond(&request, &log))
        }
    });
    // A client that closes early is no error: the demo shows the requests that arrived.
    let Some(acceptor) = acceptor else {
        let server = hyper::server::conn::http1::Builder::new();
        return drop(server.serve_connection(TokioIo::new(stream), service).await);
    };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    }
}

fn respond(request: &Request<Incoming>, log: &Log) -> Response<Full<Bytes>> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = header.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    let mut body = serde_json::json!({ "you_sent": credential }).to_string();
    if request.uri().path().ends_with("/large") {
        body = body.repeat(LARGE / body.len());
    }
    log.lock().unwrap_or_else(PoisonError::into_inner).push(credential);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
