//! Rejections for upstream failures: the host, the reason and the fix. The texts are ours or those of
//! certificates, and hold nothing of the request.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

use super::progress::{BodyFailure, Progress};
use crate::dns::resolver::ResolveError;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::upstream::connect::ConnectError;
use crate::upstream::ssrf_guard::BlockedAddress;

pub(super) fn unresolved(host: &Host, error: &ResolveError) -> Rejection {
    let code = match error {
        ResolveError::TimedOut => ErrorCode::UpstreamTimeout,
        _ => ErrorCode::UpstreamUnavailable,
    };
    Rejection::new(code, format!("'{host}' cannot be resolved: {error}"))
}

/// The SSRF guard blocked every address of `host`.
pub(super) fn blocked(host: &Host, reasons: impl Iterator<Item = BlockedAddress>) -> Rejection {
    let reasons: Vec<_> = reasons.collect();
    let message = if reasons.contains(&BlockedAddress::NotPublic) {
        format!(
            "'{host}' resolves to a private address; if that is meant, the rule needs \
             'private: true' or the network it is in"
        )
    } else if reasons.contains(&BlockedAddress::OwnListener) {
        format!("'{host}' resolves to the interceptor itself")
    } else {
        format!("'{host}' resolves to a link-local, metadata or reserved address, which is never used")
    };
    Rejection::new(ErrorCode::SsrfProtectionBlocked, message)
}

pub(super) fn unreachable(host: &Host, error: &ConnectError) -> Rejection {
    match error {
        ConnectError::Tcp(error) if error.kind() == io::ErrorKind::TimedOut => {
            Rejection::new(ErrorCode::UpstreamTimeout, format!("'{host}' cannot be reached in time"))
        }
        ConnectError::Tcp(error) => {
            let reason = describe_kind(error.kind());
            Rejection::new(ErrorCode::UpstreamUnavailable, format!("'{host}' cannot be reached: {reason}"))
        }
        ConnectError::Untrusted(reason) => untrusted(host, reason),
        ConnectError::Handshake(error) if wants_certificate(error) => {
            let message = format!("TLS with '{host}' failed: {CERTIFICATE_WANTED}");
            Rejection::new(ErrorCode::UpstreamUnavailable, message)
        }
        ConnectError::Handshake(error) => {
            let message = format!("TLS with '{host}' failed: {error}");
            Rejection::new(ErrorCode::UpstreamUnavailable, message)
        }
    }
}

pub(super) fn connect_timeout(host: &Host, limit: Duration) -> Rejection {
    let message = format!("'{host}' accepted no connection within {} s", limit.as_secs_f32());
    Rejection::new(ErrorCode::UpstreamTimeout, message)
}

pub(super) fn response_timeout(host: &Host, limit: Duration) -> Rejection {
    let message = format!("'{host}' did not answer within {} s", limit.as_secs_f32());
    Rejection::new(ErrorCode::UpstreamTimeout, message)
}

pub(super) fn connect_method(host: &Host) -> Rejection {
    let message = format!("CONNECT is no request to '{host}'");
    Rejection::new(ErrorCode::BadRequest, message)
}

/// The agent's connection was for another server than `host`; `what` names the difference.
pub(super) fn not_of_host(host: &Host, what: &str) -> Rejection {
    let message = format!("{what} is none of '{host}', for which it was");
    Rejection::new(ErrorCode::TargetMismatch, message)
}

/// The connection broke during the handshake.
pub(super) fn connection_broken(host: &Host, error: &dyn std::fmt::Display) -> Rejection {
    let message = format!("the connection to '{host}' broke: {error}");
    Rejection::new(ErrorCode::UpstreamUnavailable, message)
}

/// The server switched protocols without being asked.
pub(super) fn unexpected_upgrade(host: &Host) -> Rejection {
    let message = format!("'{host}' switched to another protocol without being asked");
    Rejection::new(ErrorCode::UpstreamUnavailable, message)
}

/// A request that was sent, at least in part, got no response.
pub(super) fn no_response(host: &Host, error: &hyper::Error, progress: &Progress) -> Rejection {
    match progress.body_failure() {
        Some(BodyFailure::TooLarge) => {
            let message = format!("the request's body is larger than is allowed for '{host}'");
            return Rejection::new(ErrorCode::BodyTooLarge, message);
        }
        Some(BodyFailure::Stalled) => {
            let message = format!("the request to '{host}' stood still for too long");
            return Rejection::new(ErrorCode::BadRequest, message);
        }
        Some(BodyFailure::Broken) => {
            let message = format!("the request to '{host}' broke off");
            return Rejection::new(ErrorCode::BadRequest, message);
        }
        None => {}
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let reason = match io {
        _ if wants_certificate(error) => CERTIFICATE_WANTED,
        _ if error.is_parse() => "it answered with what is no HTTP",
        _ if error.is_incomplete_message() => "it closed the connection without an answer",
        Some(io) => describe_kind(io.kind()),
        None => "it broke off",
    };
    Rejection::new(ErrorCode::UpstreamUnavailable, format!("'{host}' did not answer: {reason}"))
}

/// The reason when a server wants a client certificate.
const CERTIFICATE_WANTED: &str = "it accepts no client without a certificate that it trusts, or refuses ours; the \
    rule's 'client_cert' names the secret that holds one";

/// Whether TLS ended because of our certificate. TLS 1.3 reports it only after the handshake, when hyper has kept
/// no more of the alert than its text.
fn wants_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let alerts = ["CertificateRequired", "BadCertificate", "CertificateUnknown", "UnknownCA"];
    let matches = |error: &dyn std::error::Error| {
        let text = error.to_string();
        text.contains("fatal alert") && alerts.iter().any(|alert| text.contains(alert))
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if matches(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn untrusted(host: &Host, reason: &CertificateError) -> Rejection {
    use CertificateError as E;
    let (reason, advice) = match reason {
        E::NotValidForName | E::NotValidForNameContext { .. } => ("is for another name", ""),
        E::UnknownIssuer => (
            "is signed by an authority that this system does not trust",
            "; to trust it, name a PEM file with its root in AGENTSECRETS_UPSTREAM_CA",
        ),
        E::Expired | E::ExpiredContext { .. } => ("has expired", ""),
        E::NotValidYet | E::NotValidYetContext { .. } => ("is not valid yet", "; check the clock"),
        E::Revoked => ("has been revoked", ""),
        E::BadSignature => ("has a wrong signature", ""),
        E::BadEncoding => ("is malformed", ""),
        _ => ("cannot be verified", ""),
    };
    let message = format!("the certificate of '{host}' {reason}{advice}");
    Rejection::new(ErrorCode::UpstreamUntrusted, message)
}

/// Describes an error by its kind, because its own text may hold what a peer sent.
fn describe_kind(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "it refuses connections",
        io::ErrorKind::ConnectionReset => "it reset the connection",
        io::ErrorKind::NetworkUnreachable => "there is no route to its network",
        io::ErrorKind::HostUnreachable => "there is no route to it",
        io::ErrorKind::TimedOut => "it did not answer in time",
        io::ErrorKind::PermissionDenied => "the system forbids the connection",
        _ => "the connection failed",
    }
}
