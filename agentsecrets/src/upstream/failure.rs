//! What an agent is told when an upstream cannot be used: which host, why, and what to do. The texts
//! are ours or those of certificates; nothing of the request is in them.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

use super::progress::{Broke, Progress};
use crate::dns::resolver::ResolveError;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::upstream::connect::ConnectError;
use crate::upstream::ssrf_guard::Refused;

pub(super) fn unresolved(host: &Host, error: &ResolveError) -> Rejection {
    let slug = match error {
        ResolveError::TimedOut => ErrorCode::UpstreamTimeout,
        _ => ErrorCode::UpstreamUnavailable,
    };
    Rejection::new(slug, host, format!("'{host}' cannot be resolved: {error}"))
}

/// Every address of `host` was refused, for these reasons.
pub(super) fn guarded(host: &Host, reasons: impl Iterator<Item = Refused>) -> Rejection {
    let reasons: Vec<_> = reasons.collect();
    let message = if reasons.contains(&Refused::NotPublic) {
        format!(
            "'{host}' resolves to a private address; if that is meant, the rule needs \
             'private: true' or the network it is in"
        )
    } else if reasons.contains(&Refused::Ours) {
        format!("'{host}' resolves to the interceptor itself")
    } else {
        format!("'{host}' resolves to a link-local, metadata or reserved address, which is never used")
    };
    Rejection::new(ErrorCode::SsrfProtectionBlocked, host, message)
}

pub(super) fn unreachable(host: &Host, error: &ConnectError) -> Rejection {
    match error {
        ConnectError::Tcp(error) if error.kind() == io::ErrorKind::TimedOut => {
            Rejection::new(ErrorCode::UpstreamTimeout, host, format!("'{host}' cannot be reached in time"))
        }
        ConnectError::Tcp(error) => {
            let why = kind(error.kind());
            Rejection::new(ErrorCode::UpstreamUnavailable, host, format!("'{host}' cannot be reached: {why}"))
        }
        ConnectError::Untrusted(why) => untrusted(host, why),
        ConnectError::Handshake(error) if wants_certificate(error) => {
            let message = format!("TLS with '{host}' failed: {WANTS_CERTIFICATE}");
            Rejection::new(ErrorCode::UpstreamUnavailable, host, message)
        }
        ConnectError::Handshake(error) => {
            let message = format!("TLS with '{host}' failed: {error}");
            Rejection::new(ErrorCode::UpstreamUnavailable, host, message)
        }
    }
}

pub(super) fn no_connection(host: &Host, patience: Duration) -> Rejection {
    let message = format!("'{host}' accepted no connection within {} s", patience.as_secs_f32());
    Rejection::new(ErrorCode::UpstreamTimeout, host, message)
}

pub(super) fn no_answer(host: &Host, patience: Duration) -> Rejection {
    let message = format!("'{host}' did not answer within {} s", patience.as_secs_f32());
    Rejection::new(ErrorCode::UpstreamTimeout, host, message)
}

pub(super) fn connect_method(host: &Host) -> Rejection {
    let message = format!("CONNECT is no request to '{host}'");
    Rejection::new(ErrorCode::BadRequest, host, message)
}

/// The connection broke while it was made.
pub(super) fn cut(host: &Host, error: &dyn std::fmt::Display) -> Rejection {
    let message = format!("the connection to '{host}' broke: {error}");
    Rejection::new(ErrorCode::UpstreamUnavailable, host, message)
}

/// It agreed to something else than it was asked for.
pub(super) fn switched(host: &Host) -> Rejection {
    let message = format!("'{host}' switched to another protocol without being asked");
    Rejection::new(ErrorCode::UpstreamUnavailable, host, message)
}

/// A request that was begun got no answer.
pub(super) fn broken(host: &Host, error: &hyper::Error, progress: &Progress) -> Rejection {
    match progress.broke() {
        Some(Broke::TooLarge) => {
            let message = format!("the request's body is larger than is allowed for '{host}'");
            return Rejection::new(ErrorCode::BodyTooLarge, host, message);
        }
        Some(Broke::Slow) => {
            let message = format!("the request to '{host}' stood still for too long");
            return Rejection::new(ErrorCode::BadRequest, host, message);
        }
        Some(Broke::Off) => {
            let message = format!("the request to '{host}' broke off");
            return Rejection::new(ErrorCode::BadRequest, host, message);
        }
        None => {}
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let why = match io {
        _ if wants_certificate(error) => WANTS_CERTIFICATE,
        _ if error.is_parse() => "it answered with what is no HTTP",
        _ if error.is_incomplete_message() => "it closed the connection without an answer",
        Some(io) => kind(io.kind()),
        None => "it broke off",
    };
    Rejection::new(ErrorCode::UpstreamUnavailable, host, format!("'{host}' did not answer: {why}"))
}

/// What a server says that did not get a certificate it likes.
const WANTS_CERTIFICATE: &str = "it accepts no client without a certificate that it trusts, or refuses ours; the \
    rule's 'client_cert' names the secret that holds one";

/// Whether TLS ended because of our certificate. The newer version says so only after the handshake, when the
/// library between has kept no more of the alert than its words.
fn wants_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let alerts = ["CertificateRequired", "BadCertificate", "CertificateUnknown", "UnknownCA"];
    let says = |error: &dyn std::error::Error| {
        let text = error.to_string();
        text.contains("fatal alert") && alerts.iter().any(|alert| text.contains(alert))
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if says(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn untrusted(host: &Host, why: &CertificateError) -> Rejection {
    use CertificateError as E;
    let (reason, advice) = match why {
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
    Rejection::new(ErrorCode::UpstreamUntrusted, host, message)
}

/// An error's kind in words; its own text may hold what a peer said.
fn kind(kind: io::ErrorKind) -> &'static str {
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
