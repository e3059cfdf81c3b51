//! Puts secrets into a buffered body and updates its headers.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body as _;
use zeroize::Zeroizing;

use super::budget::PermittedBytes;
use super::quoted::QuotedPlaceholders;
use super::read::{ContentKind, content_kind};
use super::request_body::{BufferedBody, Content, RequestBody};
use super::{digest, form, json, multipart};
use crate::inject::injector::Injector;
use crate::policy::injection::InjectionStyle;
use crate::types::hop_by_hop;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// A changed body.
struct RewrittenBody {
    bytes: Zeroizing<Vec<u8>>,
    /// The new content type, if it changed.
    content_type: Option<String>,
}

impl RequestBody {
    /// Fills the body. Returns it with remarks for the record. The body is untouched if the grant injects
    /// nothing into it. Fails if it would change and the client `signed` it.
    pub(in crate::inject) fn fill(
        self,
        parts: &mut Parts,
        signed: Option<HeaderName>,
        injector: &Injector<'_>,
    ) -> Result<(Self, Vec<String>), Rejection> {
        if !injector.grant.secret_uses().iter().any(|secret_use| secret_use.style.is_in_body()) {
            return Ok((self, Vec::new()));
        }
        let whole = self.into_buffered(parts, injector)?;
        let Some(changed) = rewrite(&whole, parts, injector)? else {
            return Ok((RequestBody::Buffered(whole), Vec::new()));
        };
        if let Some(signature) = signed.filter(|name| !is_signed_by_rule(injector, name)) {
            return Err(injector.bad_request(format!(
                "the request is signed ({signature}), and a secret in its body would break the signature: let \
                 the rule put the secret into a header, or send the request unsigned"
            )));
        }
        let (bytes, mut trailers) = (changed.bytes, whole.trailers.clone());
        if let Some(kind) = changed.content_type {
            let kind = HeaderValue::try_from(kind)
                .map_err(|_| injector.bad_request("the body has no valid content type"))?;
            parts.headers.insert(CONTENT_TYPE, kind);
        }
        let mut notes = digest::recompute(&mut parts.headers, &bytes);
        match &mut trailers {
            None => hop_by_hop::set_length(&mut parts.headers, bytes.len() as u64),
            Some(trailers) => {
                notes.extend(digest::recompute(trailers, &bytes));
                // HTTP/1.1 allows trailers after chunks only.
                hop_by_hop::clear_framing(&mut parts.headers);
            }
        }
        let bytes = Bytes::from_owner(PermittedBytes(bytes, whole.permit.clone()));
        // The content is not inspected again.
        let content = Content::Empty;
        let whole = BufferedBody { bytes, trailers, content, ..whole };
        Ok((RequestBody::Buffered(whole), notes))
    }

    /// Returns the buffered body, or an empty one for a request without a body.
    fn into_buffered(self, parts: &Parts, injector: &Injector<'_>) -> Result<BufferedBody, Rejection> {
        match self {
            RequestBody::Buffered(whole) if !matches!(whole.content, Content::Other) => Ok(whole),
            RequestBody::Streaming(body) if body.size_hint().exact() == Some(0) => {
                let (content, quoted) = (Content::Empty, QuotedPlaceholders::default());
                Ok(BufferedBody { bytes: Bytes::new(), trailers: None, content, quoted, permit: None })
            }
            RequestBody::Buffered(_) | RequestBody::Streaming(_) => {
                let kind = if json_injections(injector).is_empty() { "a form" } else { "JSON" };
                let sent =
                    if parts.headers.contains_key(CONTENT_TYPE) { "of another type" } else { "of no type" };
                Err(injector.bad_request(format!(
                    "a secret is to be put into the body as {kind}, but the body is {sent}"
                )))
            }
        }
    }
}

/// Secrets that are injected at a path of the JSON body.
fn json_injections<'s>(injector: &'s Injector<'_>) -> Vec<(Vec<&'s str>, &'s SecretName)> {
    let uses = injector.grant.secret_uses().iter();
    let put = uses.filter_map(|secret_use| match &secret_use.style {
        InjectionStyle::Json(path) => path.keys().map(|keys| (keys, &secret_use.name)),
        _ => None,
    });
    put.collect()
}

/// Secrets that are injected as form fields.
fn form_injections<'s>(injector: &'s Injector<'_>) -> Vec<(&'s str, &'s SecretName)> {
    let uses = injector.grant.secret_uses().iter();
    let put = uses.filter_map(|secret_use| match &secret_use.style {
        InjectionStyle::Form(field) => Some((&**field, &secret_use.name)),
        _ => None,
    });
    put.collect()
}

/// Returns the changed body, or `None` if it does not change.
fn rewrite(
    whole: &BufferedBody,
    parts: &Parts,
    injector: &Injector<'_>,
) -> Result<Option<RewrittenBody>, Rejection> {
    let (in_json, in_form) = (json_injections(injector), form_injections(injector));
    let misfit = |what: &str, is: &str| {
        Err(injector.bad_request(format!("a secret is to be put into {what}, but the body is {is}")))
    };
    let changed = match &whole.content {
        Content::Json if !in_form.is_empty() => return misfit("a form", "JSON"),
        Content::Form | Content::Multipart(_) if !in_json.is_empty() => return misfit("JSON", "a form"),
        Content::Json => {
            rewrite_json(std::str::from_utf8(&whole.bytes).unwrap_or_default(), &in_json, injector)?
        }
        Content::Form => rewrite_form(&whole.bytes, &in_form, injector)?,
        Content::Multipart(fields) => {
            let made = multipart::rewrite(fields, &in_form, injector)?;
            return Ok(
                made.map(|made| RewrittenBody { bytes: made.bytes, content_type: Some(made.content_type) })
            );
        }
        Content::Other => None,
        Content::Empty => return create_body(&in_json, &in_form, parts, injector),
        Content::Malformed(_) if in_json.is_empty() && in_form.is_empty() => None,
        Content::Malformed(why) => {
            return Err(injector.bad_request(format!(
                "a secret is to be put into the body, but that is not what its Content-Type says: {why}"
            )));
        }
    };
    Ok(changed.map(|bytes| RewrittenBody { bytes, content_type: None }))
}

fn rewrite_json(
    text: &str,
    puts: &[(Vec<&str>, &SecretName)],
    injector: &Injector<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let mut changed = json::fill(text, injector)?;
    if changed.is_some() || !puts.is_empty() {
        json::reject_duplicate_keys(text, injector)?;
    }
    for (keys, name) in puts {
        let now = match &changed {
            Some(changed) => std::str::from_utf8(changed).unwrap_or_default(),
            None => text,
        };
        changed = Some(json::insert_secret(now, keys, name, injector)?);
    }
    Ok(changed)
}

fn rewrite_form(
    form: &[u8],
    puts: &[(&str, &SecretName)],
    injector: &Injector<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let mut changed = form::fill(form, injector)?;
    for (field, name) in puts {
        let now = changed.as_deref().map_or(form, |changed| changed.as_slice());
        changed = Some(form::set_field(now, field, name, injector)?);
    }
    Ok(changed)
}

/// Creates the body of a request that has none.
fn create_body(
    in_json: &[(Vec<&str>, &SecretName)],
    in_form: &[(&str, &SecretName)],
    parts: &Parts,
    injector: &Injector<'_>,
) -> Result<Option<RewrittenBody>, Rejection> {
    if in_json.is_empty() && in_form.is_empty() {
        return Ok(None);
    }
    if [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(&parts.method) {
        let message = format!(
            "a secret is to be put into the body, and {} has none: name the rule's methods",
            parts.method
        );
        return Err(injector.bad_request(message));
    }
    let (bytes, kind, said) = match in_form {
        [] => (rewrite_json("{}", in_json, injector)?, "application/json", ContentKind::Json),
        _ => (rewrite_form(b"", in_form, injector)?, "application/x-www-form-urlencoded", ContentKind::Form),
    };
    let keeps_type = content_kind(&parts.headers)? == Some(said);
    Ok(bytes.map(|bytes| RewrittenBody { bytes, content_type: (!keeps_type).then(|| kind.to_owned()) }))
}

/// Whether the rule replaces the signature in this header.
fn is_signed_by_rule(injector: &Injector<'_>, header: &HeaderName) -> bool {
    injector.grant.signing().is_some_and(|signing| signing.sets_header(header))
}

/// Returns the header by which a client signs its body.
pub(in crate::inject) fn signature_header(headers: &HeaderMap) -> Option<HeaderName> {
    let signs = |name: &HeaderName| {
        name.as_str().split(['-', '_']).any(|word| matches!(word, "signature" | "sig" | "hmac"))
    };
    let scheme = headers.get(AUTHORIZATION).map(|value| value.as_bytes().to_ascii_lowercase());
    let schemes: [&[u8]; 4] = [b"aws4-", b"signature ", b"hmac", b"oauth "];
    let by_scheme = scheme.is_some_and(|value| schemes.iter().any(|scheme| value.starts_with(scheme)));
    headers.keys().find(|name| signs(name)).cloned().or(by_scheme.then_some(AUTHORIZATION))
}
