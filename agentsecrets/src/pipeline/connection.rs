//! The way in of a connection: whom it is from, whom it is for, and whether it is opened at all. What comes
//! out of it are requests.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;

use super::record::Attempt;
use super::{CallerResult, ConnectionContext, Pipeline, passthrough};
use crate::authz::{Admitted, RevocationGuard};
use crate::http::framing::Violation;
use crate::http::server;
use crate::identity::Caller;
use crate::intercept::Destination;
use crate::intercept::protocol_detection::{Protocol, detect};
use crate::intercept::reset_on_drop::{ResetOnDrop, reset};
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::connection::{PassthroughPermit as Passage, decide_passthrough};
use crate::tls::leaf::LeafCertCache;
use crate::tls::terminate::{PendingHello, TerminateError, Terminated};
use crate::types::host::Host;
use crate::types::presented::PresentedCredentials;
use crate::types::rejection::Rejection;
use crate::types::target::{Claim, Scheme, Target};

/// In-flight requests have this time to end by themselves.
const REVOCATION_GRACE: Duration = Duration::from_millis(250);

/// The entry of connections into the pipeline.
pub struct Interceptor {
    /// The pipeline for their requests.
    pub pipeline: Arc<Pipeline>,
    /// Our certificates.
    pub leaves: Arc<LeafCertCache>,
}

/// A connection that came to us: where it is going, and whose it is, or why nobody knows.
pub(super) struct IncomingConnection {
    pub(super) destination: Destination,
    pub(super) caller: CallerResult,
    pub(super) shown: PresentedCredentials,
}

/// The detected protocol of a new connection.
pub(super) enum DetectedProtocol {
    /// TLS that we ended: requests can come.
    Tls(Box<Terminated>),
    /// Plain HTTP: requests can come.
    Plain(TcpStream),
    /// TLS that a rule speaks about and that is not opened.
    Passthrough(Box<PendingHello>, Result<Passage, Rejection>, Box<Admitted>),
}

/// Why a connection never became an exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// It was closed before it said anything, or waited too long to do so.
    #[error("nothing was said")]
    Closed,
    #[error("neither TLS nor HTTP: reset")]
    Unknown,
    #[error("target_mismatch: the proxy was asked for another server than the TLS server name")]
    TargetMismatch,
    #[cfg(target_os = "linux")]
    #[error("too many connections at once: reset")]
    LimitReached,
    #[error(transparent)]
    Tls(#[from] TerminateError),
}

impl Interceptor {
    /// Serves the rest of a connection by which an agent reaches a server through us.
    pub(super) async fn serve_tunnel(self: Arc<Self>, stream: TcpStream, arrived: IncomingConnection) {
        let heard = self.detect(stream, &arrived).await;
        self.serve_detected(arrived, heard).await;
    }

    pub(super) async fn serve_detected(
        self: Arc<Self>,
        arrived: IncomingConnection,
        heard: Result<DetectedProtocol, ConnectionError>,
    ) {
        let IncomingConnection { destination, caller, shown } = arrived;
        // What follows is boxed: a connection that has said nothing yet must not cost what an exchange does.
        let port = destination.port();
        let session = |caller, claim| Arc::new(ConnectionContext { caller, claim, shown });
        let (session, ended) = match heard {
            Ok(DetectedProtocol::Tls(tls)) => {
                let session = session(caller, Claim::Named { scheme: Scheme::Https, host: tls.host, port });
                let io = ResetOnDrop::new(tls.stream, |tls| tls.get_ref().0.tcp());
                (session.clone(), Box::pin(self.serve(io, tls.is_http2, session, &destination)).await)
            }
            Ok(DetectedProtocol::Plain(stream)) => {
                let claim = match &destination {
                    Destination::Address(_) => Claim::Plain { port },
                    Destination::Named(host, _) => {
                        Claim::Named { scheme: Scheme::Http, host: host.clone(), port }
                    }
                };
                let session = session(caller, claim);
                let io = ResetOnDrop::new(stream, |tcp| tcp);
                (session.clone(), Box::pin(self.serve(io, false, session, &destination)).await)
            }
            Ok(DetectedProtocol::Passthrough(hello, passage, admitted)) => {
                return Box::pin(self.serve_passthrough(*hello, passage, &admitted, &destination)).await;
            }
            Err(ConnectionError::Closed) => return,
            Err(broken) => {
                let caller = caller.as_ref().as_ref().ok();
                return self.record_failure(caller, &destination, &broken.to_string());
            }
        };
        match ended {
            Err(error) if error.is_parse() => {
                self.record_failure(session.caller.as_ref().as_ref().ok(), &destination, &error.to_string());
            }
            Err(error) => tracing::debug!(%error, "an agent's connection broke off"),
            Ok(()) => {}
        }
    }

    /// Finds out what a new connection speaks, and answers its ClientHello unless a rule leaves it unopened.
    pub(super) async fn detect(
        &self,
        stream: TcpStream,
        arrived: &IncomingConnection,
    ) -> Result<DetectedProtocol, ConnectionError> {
        let destination = &arrived.destination;
        let patience = self.pipeline.timeouts.handshake;
        match detect(&stream, patience).await.map_err(|_| ConnectionError::Closed)? {
            Protocol::Tls => {}
            Protocol::Http => return Ok(DetectedProtocol::Plain(stream)),
            Protocol::Unknown => {
                reset(stream);
                return Err(ConnectionError::Unknown);
            }
        }
        let hello = PendingHello::read(stream, destination.host(), patience).await?;
        if let Destination::Named(host, _) = destination
            && host != hello.host()
        {
            hello.into_passthrough().reject().await;
            return Err(ConnectionError::TargetMismatch);
        }
        match self.decide_passthrough(arrived, hello.host()) {
            Some((passage, admitted)) => {
                Ok(DetectedProtocol::Passthrough(Box::new(hello), passage, Box::new(admitted)))
            }
            None => Ok(DetectedProtocol::Tls(Box::new(Box::pin(hello.terminate(&self.leaves)).await?))),
        }
    }

    /// Whether a connection to `host` is passed on as it is, or refused, since a rule speaks about it; where
    /// none does, it is opened.
    fn decide_passthrough(
        &self,
        arrived: &IncomingConnection,
        host: &Host,
    ) -> Option<(Result<Passage, Rejection>, Admitted)> {
        let (pipeline, port) = (&self.pipeline, arrived.destination.port());
        let (admitted, refused) = match pipeline.capabilities.admit(&arrived.caller, &arrived.shown) {
            Ok(admitted) => (admitted, None),
            // A rule may speak about it all the same, for whom the system says it is.
            Err(refused) => {
                let caller = arrived.caller.as_ref().as_ref().ok()?.clone();
                (Admitted { caller, held: RevocationGuard::default() }, Some(refused.refusal))
            }
        };
        let decided = decide_passthrough(&pipeline.policy.get(), &admitted.caller, host, port).transpose()?;
        let target = Target { scheme: Scheme::Https, host: host.clone(), port };
        let ask = AccessRequest {
            target: &target,
            method: &Method::CONNECT,
            path: "/",
            websocket: false,
            references: &[],
        };
        let bounded = |passage| {
            let refusal = refused.or_else(|| pipeline.capabilities.rejection(&admitted.caller, &ask, &[]));
            refusal.map_or(Ok(passage), Err)
        };
        Some((decided.and_then(bounded), admitted))
    }

    /// Passes a connection on as it is, or refuses it, where a rule says so.
    async fn serve_passthrough(
        &self,
        hello: PendingHello,
        passage: Result<Passage, Rejection>,
        admitted: &Admitted,
        destination: &Destination,
    ) {
        match passage {
            Ok(passage) => self.pipeline.pass_through(hello, &passage, admitted, destination).await,
            Err(refusal) => {
                let (log, port, caller) = (&self.pipeline.audit, destination.port(), &admitted.caller);
                let attempt = Attempt::unopened(log, &self.pipeline.environment, caller, hello.host(), port);
                passthrough::reject(hello, attempt, refusal).await;
            }
        }
    }

    async fn serve<IO>(
        self: &Arc<Self>,
        io: IO,
        http2: bool,
        session: Arc<ConnectionContext>,
        destination: &Destination,
    ) -> hyper::Result<()>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |request| {
            let (pipeline, session) = (self.pipeline.clone(), session.clone());
            async move { pipeline.request(&session, request).await }
        };
        let violated = {
            let (intercept, session, destination) = (self.clone(), session.clone(), destination.clone());
            move |violation: Violation| {
                intercept.record_failure(
                    session.caller.as_ref().as_ref().ok(),
                    &destination,
                    violation.message,
                );
            }
        };
        server::serve(io, http2, &self.pipeline.timeouts, &self.pipeline.stop, answer, violated).await
    }

    /// A connection that never became an exchange leaves a record too.
    pub(super) fn record_failure(&self, caller: Option<&Caller>, destination: &Destination, reason: &str) {
        Attempt::broken(&self.pipeline.audit, &self.pipeline.environment, caller, destination, reason);
    }
}

/// Does `work`, but not for long once one of what is `held` is over. What is under way has then written down why
/// it ended, unless nobody was there to take it.
pub(super) async fn until_revoked(held: &RevocationGuard, work: impl Future<Output = ()>) {
    let over = async {
        held.ended().await;
        tokio::time::sleep(REVOCATION_GRACE).await;
    };
    tokio::select! {
        () = work => {}
        () = over => {}
    }
}
