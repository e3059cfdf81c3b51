//! The webhook's HTTPS server, for the API server's reviews and the kubelet's probes.

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
use crate::kubernetes::sidecar_template::TemplateFile;
use crate::sys::watched_file::WatchedFile;
use crate::types::body::{Body, full};
use crate::types::timeouts::Timeouts;

/// Maximum length of a review: the API server accepts no larger object, and sends it twice.
const MAX_REVIEW_LENGTH: usize = 8 << 20;
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that reviews in flight get when the server is stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The webhook server.
pub struct Webhook {
    /// The template for injection.
    pub sidecar: WatchedFile<TemplateFile>,
    /// The current certificate; `None` until the first one exists.
    pub certificate: watch::Receiver<Option<Arc<CertifiedKey>>>,
}

/// Resolves to the current certificate.
#[derive(Debug)]
struct CurrentCertificate(watch::Receiver<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

impl Webhook {
    /// Serves `listener` until `stop` is cancelled.
    ///
    /// # Errors ¶| If TLS cannot be set up.
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
        let mut config = config.with_cert_resolver(Arc::new(CurrentCertificate(self.certificate.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (acceptor, webhook) = (TlsAcceptor::from(Arc::new(config)), Arc::new(self));
        let (permits, tasks) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit.map_err(io::Error::other)?,
                () = stop.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Most likely no descriptor is left; the backlog keeps the connection.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (webhook, acceptor, stop) = (webhook.clone(), acceptor.clone(), stop.clone());
            tasks.spawn(async move {
                webhook.connection(stream, &acceptor, &stop).await;
                drop(permit);
            });
        }
        tasks.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await;
        Ok(())
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        acceptor: &TlsAcceptor,
        stop: &CancellationToken,
    ) {
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let Ok(Ok(tls)) = accepted else { return };
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let answer = |request| {
            let webhook = self.clone();
            async move { webhook.handle(request).await }
        };
        let served = server::serve(tls, http2, &Timeouts::default(), stop, answer, |_violation| {}).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke off");
        }
    }

    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text_response(StatusCode::OK, "ok\n"),
            (&Method::GET, "/readyz") => match self.sidecar.last_error() {
                None => text_response(StatusCode::OK, "ready\n"),
                Some(error) => text_response(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            },
            (&Method::POST, "/inject") => self.review(request.into_body()).await,
            _ => text_response(StatusCode::NOT_FOUND, "there is nothing at this path\n"),
        }
    }

    async fn review(&self, body: Body) -> Response<Body> {
        let body = match Limited::new(body, MAX_REVIEW_LENGTH).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return text_response(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        match admission_review::review(&body, &self.sidecar.get()) {
            Ok(answer) => {
                let mut response = Response::new(full(answer));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => text_response(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn text_response(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}
