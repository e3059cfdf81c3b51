//! Puts the granted secrets into a request and turns it into one that may leave. A placeholder that the
//! grant does not name stays text: filling a quoted placeholder would publish the secret.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request};

use super::body::{RequestBody, signature_header};
use super::headers;
use super::outbound::{Isolation, Outbound, TlsRequirements};
use super::placeholder::Placeholders;
use super::url;
use crate::credentials::resolved::Credentials;
use crate::http::upgrade::{self, Handshake};
use crate::inject::injector::Injector;
use crate::policy::grant::Grant;
use crate::policy::injection::InjectionStyle;
use crate::redact::Redactor;
use crate::redact::limit_codings;
use crate::redact::patterns::Patterns;
use crate::types::hop_by_hop;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Scheme, Target};

/// Puts the grant's secrets into `request`, which goes to `target` only. `patterns` match every secret
/// that the agent may secret_use. Fails with `secret_missing` if `credentials` lacks a secret, `bad_request`
/// if a location cannot hold a value, and `non_https_blocked` if a value would be sent in plaintext.
pub(crate) fn apply(
    request: Request<RequestBody>,
    target: Target,
    grant: &Grant,
    credentials: &Credentials,
    placeholders: &Placeholders,
    session: Arc<str>,
    patterns: Arc<Patterns>,
) -> Result<(Outbound, Redactor), Rejection> {
    let injector = Injector::new(&target, grant, credentials, placeholders)?;
    if target.scheme == Scheme::Http && !grant.secret_uses().is_empty() {
        return Err(
            injector.reject(ErrorCode::NonHttpsBlocked, "a secret is only sent over HTTPS".to_owned())
        );
    }
    let (mut parts, body) = request.into_parts();
    hop_by_hop::sanitize_request(&mut parts.headers);
    if parts.extensions.get::<Handshake>().is_some() {
        upgrade::request_websocket(&mut parts.headers);
    }
    if !patterns.is_empty() {
        limit_codings(&mut parts);
    }
    let signed = signature_header(&parts.headers);
    headers::fill(&mut parts.headers, &injector)?;
    parts.uri = url::fill(&parts.uri, &injector)?;
    let (body, notes) = body.fill(&mut parts, signed, &injector)?;
    let host = HeaderValue::try_from(target.authority());
    parts.headers.insert(HOST, host.map_err(|_| injector.bad_request("the server's name is not valid"))?);
    parts.version = http::Version::HTTP_11;
    let tls = tls_requirements(&injector)?;
    let redactor = Redactor::new(patterns, parts.method.clone(), &target.host);
    let mut names: Vec<SecretName> =
        grant.secret_uses().iter().map(|secret_use| secret_use.name.clone()).collect();
    names.sort();
    names.dedup();
    let isolation = Isolation { session, agent: grant.agent().clone(), credentials: names.into() };
    let request = Request::from_parts(parts, body);
    let private_addresses = grant.private().clone();
    Ok((Outbound { request, target, private_addresses, isolation, tls, notes }, redactor))
}

/// TLS requirements of the grant.
fn tls_requirements(injector: &Injector<'_>) -> Result<TlsRequirements, Rejection> {
    let mut tls = TlsRequirements { roots: injector.grant.roots().cloned(), certificate: None };
    for secret_use in injector.grant.secret_uses() {
        if secret_use.style == InjectionStyle::ClientCertificate {
            let value = injector.credentials.shared(&secret_use.name);
            let value = value.ok_or_else(|| injector.secret_missing(&secret_use.name))?;
            tls.certificate = Some((secret_use.name.clone(), value));
        }
    }
    Ok(tls)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
