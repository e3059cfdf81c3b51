//! Puts the secrets of a grant into a request, which becomes one that may leave. What the grant does not
//! name stays text: a quoted placeholder is never filled in, since that would publish the secret.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request};

use super::body::{Payload, signature};
use super::headers::{self, strip};
use super::placeholder::Vocabulary;
use super::{Isolation, Outbound, Proof, url};
use crate::credentials::resolved::Credentials;
use crate::http::upgrade::{self, Handshake};
use crate::inject::injector::Spender;
use crate::policy::grant::{Grant, Style};
use crate::redact::Redactor;
use crate::redact::limit_codings;
use crate::redact::patterns::Patterns;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Scheme, Target};

/// Puts the grant's secrets into `request`, for `target` and nobody else. `patterns` are those of every
/// secret that the agent may spend. Refused with `secret_missing` where `credentials` lacks a
/// secret, `bad_request` where a value cannot stand where it should, and `non_https_blocked` where
/// it would travel in the clear.
pub fn apply(
    request: Request<Payload>,
    target: Target,
    grant: &Grant,
    credentials: &Credentials,
    vocabulary: &Vocabulary,
    session: Arc<str>,
    patterns: Arc<Patterns>,
) -> Result<(Outbound, Redactor), Rejection> {
    let spender = Spender::new(&target, grant, credentials, vocabulary)?;
    if target.scheme == Scheme::Http && !grant.spends().is_empty() {
        return Err(spender.refuse(ErrorCode::NonHttpsBlocked, "a secret is only sent over HTTPS".to_owned()));
    }
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    if parts.extensions.get::<Handshake>().is_some() {
        upgrade::ask(&mut parts.headers);
    }
    if !patterns.is_empty() {
        limit_codings(&mut parts);
    }
    let signed = signature(&parts.headers);
    headers::fill(&mut parts.headers, &spender)?;
    parts.uri = url::fill(&parts.uri, &spender)?;
    let (body, notes) = body.fill(&mut parts, signed, &spender)?;
    let host = HeaderValue::try_from(target.authority());
    parts.headers.insert(HOST, host.map_err(|_| spender.bad("the server's name is not valid"))?);
    parts.version = http::Version::HTTP_11;
    let proof = proof(&spender)?;
    let redactor = Redactor::new(patterns, parts.method.clone(), &target.host);
    let mut names: Vec<SecretName> = grant.spends().iter().map(|spend| spend.name.clone()).collect();
    names.sort();
    names.dedup();
    let isolation = Isolation { session, agent: grant.agent().clone(), credentials: names.into() };
    let request = Request::from_parts(parts, body);
    let private = grant.private().clone();
    Ok((Outbound { request, target, private, isolation, proof, notes }, redactor))
}

/// What the connection is to prove.
fn proof(spender: &Spender<'_>) -> Result<Proof, Rejection> {
    let mut proof = Proof { roots: spender.grant.roots().cloned(), certificate: None };
    for spend in spender.grant.spends() {
        if spend.style == Style::ClientCertificate {
            let value = spender.credentials.shared(&spend.name);
            let value = value.ok_or_else(|| spender.missing(&spend.name))?;
            proof.certificate = Some((spend.name.clone(), value));
        }
    }
    Ok(proof)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
