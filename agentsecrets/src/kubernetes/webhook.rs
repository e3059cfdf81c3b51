//! The webhook as a server: HTTPS for the API server, and whether it is ready for the kubelet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::server;
use crate::kubernetes::admission_review;
use crate::kubernetes::sidecar_template::FragmentFile;
use crate::sys::watched_file::Followed;
use crate::types::body::{Body, full};
use crate::types::timeouts::Timeouts;

/// The largest question that is read, in bytes: the API server takes no larger object, and sends it twice.
const LARGEST: usize = 8 << 20;
/// How many connections there may be at once.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long questions under way may take when we are told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The webhook.
pub struct Webhook {
    /// What is put into pods.
    pub sidecar: Followed<FragmentFile>,
    /// What it proves itself with; none as long as there is none.
    pub certificate: watch::Receiver<Option<Arc<CertifiedKey>>>,
}

/// The certificate that is to be shown now.
#[derive(Debug)]
struct Shown(watch::Receiver<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

impl Webhook {
    /// Serves `listener` until `stop` is cancelled.
    ///
    /// # Errors
    /// When TLS cannot be served.
    pub async fn serve(
        self,
        listener: TcpListener,
        provider: Arc<CryptoProvider>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::new(Shown(self.certificate.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (acceptor, webhook) = (TlsAcceptor::from(Arc::new(config)), Arc::new(self));
        let (room, tasks) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), TaskTracker::new());
        loop {
            let place = tokio::select! {
                place = room.clone().acquire_owned() => place.map_err(io::Error::other)?,
                () = stop.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: the backlog waits for us.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (webhook, acceptor, stop) = (webhook.clone(), acceptor.clone(), stop.clone());
            tasks.spawn(async move {
                webhook.connection(stream, &acceptor, &stop).await;
                drop(place);
            });
        }
        tasks.close();
        let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
        Ok(())
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        acceptor: &TlsAcceptor,
        stop: &CancellationToken,
    ) {
        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
        let Ok(Ok(tls)) = handshake else { return };
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let answer = |request| {
            let webhook = self.clone();
            async move { webhook.answer(request).await }
        };
        let served = server::serve(tls, http2, &Timeouts::default(), stop, answer, |_violation| {}).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke off");
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => said(StatusCode::OK, "ok\n"),
            (&Method::GET, "/readyz") => match self.sidecar.last_error() {
                None => said(StatusCode::OK, "ready\n"),
                Some(error) => said(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            },
            (&Method::POST, "/inject") => self.review(request.into_body()).await,
            _ => said(StatusCode::NOT_FOUND, "there is nothing at this path\n"),
        }
    }

    async fn review(&self, body: Body) -> Response<Body> {
        let body = match Limited::new(body, LARGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return said(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        match admission_review::answer(&body, &self.sidecar.get()) {
            Ok(answer) => {
                let mut response = Response::new(full(answer));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => said(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn said(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}
