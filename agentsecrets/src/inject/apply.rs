//! Puts the secrets of a grant into a request, which becomes one that may leave. What the grant does not
//! name stays text: a quoted placeholder is never filled in, since that would publish the secret.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::placeholder::Vocabulary;
use super::references::{basic, decoded, is_ours, place};
use super::{Isolation, Outbound, Proof};
use crate::base::name::SecretName;
use crate::base::refusal::{Refusal, Slug};
use crate::base::secret::Secret;
use crate::exchange::body::Body;
use crate::exchange::target::{Scheme, Target};
use crate::exchange::upgrade::{self, Handshake};
use crate::policy::ask::Place;
use crate::policy::grant::{Grant, Style};
use crate::redact::patterns::Patterns;
use crate::redact::{Redactor, prepare};
use crate::resolve::credentials::Credentials;

/// Puts the grant's secrets into `request`, for `target` and nobody else. `patterns` are those of every
/// secret that the agent may spend. Refused with `secret_missing` where `credentials` lacks a
/// secret, `bad_request` where a value cannot stand where it should, and `non_https_blocked` where
/// it would travel in the clear.
pub fn apply(
    request: Request<Body>,
    target: Target,
    grant: &Grant,
    credentials: &Credentials,
    vocabulary: &Vocabulary,
    session: Arc<str>,
    patterns: Arc<Patterns>,
) -> Result<(Outbound, Redactor), Refusal> {
    let spender = Spender { target: &target, grant, credentials };
    if target.scheme == Scheme::Http && !grant.spends().is_empty() {
        return Err(spender.refuse(Slug::NonHttpsBlocked, "a secret is only sent over HTTPS".to_owned()));
    }
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    if parts.extensions.get::<Handshake>().is_some() {
        upgrade::ask(&mut parts.headers);
    }
    if !patterns.is_empty() {
        prepare(&mut parts);
    }
    let mut proof = Proof { roots: grant.roots().cloned(), certificate: None };
    let mut query = parts.uri.query().map(|query| Zeroizing::new(query.to_owned()));
    spender.fill_headers(&mut parts.headers, vocabulary)?;
    if let Some(text) = &query {
        query = Some(spender.fill_query(text, vocabulary)?);
    }
    for spend in grant.spends() {
        match &spend.style {
            // A signature comes last, over all the rest.
            Style::Placeholder(_) | Style::AwsSignature | Style::HmacSignature => {}
            Style::Bearer => {
                let value = [b"Bearer ", spender.value(&spend.name)?.expose()].concat();
                parts.headers.insert(AUTHORIZATION, spender.header(&spend.name, &Zeroizing::new(value))?);
            }
            Style::Basic => {
                let value = spender.value(&spend.name)?.expose();
                if !value.contains(&b':') {
                    let message = format!("secret '{}' is no user:password, as Basic needs it", spend.name);
                    return Err(spender.refuse(Slug::BadRequest, message));
                }
                parts.headers.insert(AUTHORIZATION, spender.header(&spend.name, &basic_value(value))?);
            }
            Style::Header(name) => {
                if FRAMING.contains(name) {
                    let message = format!("the header '{name}' frames the request and cannot carry a secret");
                    return Err(spender.refuse(Slug::BadRequest, message));
                }
                let value = spender.header(&spend.name, spender.value(&spend.name)?.expose())?;
                parts.headers.insert(name.clone(), value);
            }
            Style::ClientCertificate => {
                let value = credentials.shared(&spend.name).ok_or_else(|| spender.missing(&spend.name))?;
                proof.certificate = Some((spend.name.clone(), value));
            }
            Style::Query(parameter) => {
                let value = spender.value(&spend.name)?;
                query = Some(with_parameter(query.as_deref().map_or("", String::as_str), parameter, value));
            }
        }
    }
    let judged = parts.uri.clone();
    parts.uri = spender.uri(judged.path(), query.as_deref().map(String::as_str))?;
    spender.judge_again(&judged, &parts.uri)?;
    parts.headers.insert(HOST, spender.host()?);
    parts.version = http::Version::HTTP_11;
    let redactor = Redactor::new(patterns, parts.method.clone(), &target.host);
    let mut names: Vec<SecretName> = grant.spends().iter().map(|spend| spend.name.clone()).collect();
    names.sort();
    names.dedup();
    let isolation = Isolation { session, agent: grant.agent().clone(), credentials: names.into() };
    let request = Request::from_parts(parts, body);
    let private = grant.private().clone();
    Ok((Outbound { request, target, private, isolation, proof }, redactor))
}

/// Headers that say how a request is framed or routed.
const FRAMING: [HeaderName; 7] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, UPGRADE, EXPECT];

/// Drops what is for this hop or for us alone.
fn strip(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            is_ours(name)
                || name.as_str().starts_with("proxy-")
                || matches!(name.as_str(), "keep-alive" | "http2-settings" | "te" | "expect")
                || [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
                || named.contains(name)
        })
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

struct Spender<'a> {
    target: &'a Target,
    grant: &'a Grant,
    credentials: &'a Credentials,
}

impl Spender<'_> {
    fn value(&self, name: &SecretName) -> Result<&Secret, Refusal> {
        self.credentials.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &SecretName) -> Refusal {
        self.refuse(Slug::SecretMissing, format!("secret '{name}' not found in keychain"))
    }

    /// The values that may be filled in at `place`, by name.
    fn values(&self, place: Place) -> Result<Vec<(&SecretName, &Secret)>, Refusal> {
        let here = self.grant.spends().iter().filter(|spend| spend.style == Style::Placeholder(place));
        here.map(|spend| Ok((&spend.name, self.value(&spend.name)?))).collect()
    }

    fn fill_headers(&self, headers: &mut HeaderMap, vocabulary: &Vocabulary) -> Result<(), Refusal> {
        for at in [Place::Auth, Place::Header, Place::Cookie] {
            let values = self.values(at)?;
            let Some((first, _)) = values.first() else { continue };
            let lookup = lookup(&values);
            for (name, value) in headers.iter_mut().filter(|(name, _)| place(name) == at) {
                let filled = match basic(name, value.as_bytes()) {
                    Some(pair) => vocabulary.fill(&pair, &lookup).map(|pair| basic_value(&pair)),
                    None => None,
                };
                if let Some(filled) = filled.or_else(|| vocabulary.fill(value.as_bytes(), &lookup)) {
                    let name = vocabulary
                        .mentions(value.as_bytes())
                        .find(|mention| lookup(&mention.name).is_some())
                        .map_or_else(|| (*first).clone(), |mention| mention.name);
                    *value = self.header(&name, &filled)?;
                }
            }
        }
        Ok(())
    }

    /// The query with its placeholders filled; parameters without one keep their very bytes.
    fn fill_query(&self, query: &str, vocabulary: &Vocabulary) -> Result<Zeroizing<String>, Refusal> {
        let values = self.values(Place::Query)?;
        if values.is_empty() {
            return Ok(Zeroizing::new(query.to_owned()));
        }
        let lookup = lookup(&values);
        let fill = |text: &str| match vocabulary.fill(&decoded(text), &lookup) {
            Some(filled) => encoded(&filled),
            None => text.to_owned(),
        };
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) => format!("{}={}", fill(name), fill(value)),
            None => fill(pair),
        });
        Ok(Zeroizing::new(pairs.collect::<Vec<_>>().join("&")))
    }

    fn header(&self, name: &SecretName, bytes: &[u8]) -> Result<HeaderValue, Refusal> {
        let mut value = HeaderValue::from_bytes(bytes).map_err(|_| {
            self.refuse(Slug::BadRequest, format!("secret '{name}' holds bytes that a header cannot carry"))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn authority(&self) -> String {
        match self.target.port {
            port if port == self.target.scheme.default_port() => self.target.host.to_string(),
            port => format!("{}:{port}", self.target.host),
        }
    }

    fn host(&self) -> Result<HeaderValue, Refusal> {
        HeaderValue::try_from(self.authority()).map_err(|_| self.bad_url())
    }

    fn uri(&self, path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
        let path = match query {
            Some(query) => Zeroizing::new(format!("{path}?{query}")),
            None => Zeroizing::new(path.to_owned()),
        };
        let path = PathAndQuery::try_from(path.as_bytes()).map_err(|_| self.bad_url())?;
        let scheme = self.target.scheme.as_str();
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority())
            .path_and_query(path)
            .build()
            .map_err(|_| self.bad_url())
    }

    /// What was filled in must not have changed what was judged: the server, the path, and which parameters
    /// the query has but for those that the grant puts in.
    fn judge_again(&self, judged: &Uri, filled: &Uri) -> Result<(), Refusal> {
        let parameters = |uri: &Uri| -> Vec<Vec<u8>> {
            let pairs = uri.query().unwrap_or_default().split('&');
            let names = pairs.map(|pair| decoded(pair.split('=').next().unwrap_or_default()).into_owned());
            names.filter(|name| !self.injects_parameter(name)).filter(|name| !name.is_empty()).collect()
        };
        let fills_query =
            self.grant.spends().iter().any(|spend| spend.style == Style::Placeholder(Place::Query));
        let (before, after) = (parameters(judged), parameters(filled));
        // A placeholder may be a parameter's name.
        let same = if fills_query { before.len() == after.len() } else { before == after };
        let here = filled.authority().is_some_and(|authority| *authority == *self.authority());
        if same && here && filled.path() == judged.path() {
            return Ok(());
        }
        Err(self.refuse(Slug::BadRequest, "filling in a secret would make it another request".to_owned()))
    }

    fn injects_parameter(&self, name: &[u8]) -> bool {
        self.grant
            .spends()
            .iter()
            .any(|spend| matches!(&spend.style, Style::Query(parameter) if parameter.as_bytes() == name))
    }

    fn bad_url(&self) -> Refusal {
        self.refuse(Slug::BadRequest, "the request's URL is not valid, or too long".to_owned())
    }

    fn refuse(&self, slug: Slug, message: String) -> Refusal {
        Refusal::new(slug, &self.target.host, message).by_rule(&**self.grant.rule())
    }
}

fn lookup<'v>(values: &[(&'v SecretName, &'v Secret)]) -> impl Fn(&SecretName) -> Option<&'v [u8]> {
    move |name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.expose())
}

fn basic_value(pair: &[u8]) -> Zeroizing<Vec<u8>> {
    let pair = Zeroizing::new(STANDARD.encode(pair));
    Zeroizing::new([b"Basic ", pair.as_bytes()].concat())
}

/// RFC 3986's unreserved characters, which nobody reads otherwise.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, QUERY).to_string()
}

/// `query` with this parameter in place of any of the same name.
fn with_parameter(query: &str, name: &str, value: &Secret) -> Zeroizing<String> {
    let others = query.split('&').filter(|pair| {
        let known = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && *decoded(known) != *name.as_bytes()
    });
    let parameter = Zeroizing::new(format!("{}={}", encoded(name.as_bytes()), encoded(value.expose())));
    Zeroizing::new(others.chain([parameter.as_str()]).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
