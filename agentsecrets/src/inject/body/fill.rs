//! Puts secrets into a body that was read, and lets the headers say what it then is.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body as _;
use zeroize::Zeroizing;

use super::read::{Kind, kind as kind_of};
use super::{Content, Held, Payload, Quotes, Whole, digest, form, json, multipart};
use crate::inject::injector::Spender;
use crate::policy::grant::Style;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// A body that changed.
struct Changed {
    bytes: Zeroizing<Vec<u8>>,
    /// What it is, if its type changed too.
    content_type: Option<String>,
}

impl Payload {
    /// The body that leaves, and what is to be noted of it. What of the grant does not concern the body
    /// leaves it as it is. Refused if it would change and is `signed` by the client.
    pub(in crate::inject) fn fill(
        self,
        parts: &mut Parts,
        signed: Option<HeaderName>,
        spender: &Spender<'_>,
    ) -> Result<(Self, Vec<String>), Rejection> {
        if !spender.grant.spends().iter().any(|spend| spend.style.is_in_body()) {
            return Ok((self, Vec::new()));
        }
        let whole = self.whole(parts, spender)?;
        let Some(changed) = changed(&whole, parts, spender)? else {
            return Ok((Payload::Read(whole), Vec::new()));
        };
        if let Some(signature) = signed.filter(|name| !signs(spender, name)) {
            return Err(spender.bad(format!(
                "the request is signed ({signature}), and a secret in its body would break the signature: let \
                 the rule put the secret into a header, or send the request unsigned"
            )));
        }
        let (bytes, mut trailers) = (changed.bytes, whole.trailers.clone());
        if let Some(kind) = changed.content_type {
            let kind = HeaderValue::try_from(kind).map_err(|_| spender.bad("the body has no valid type"))?;
            parts.headers.insert(CONTENT_TYPE, kind);
        }
        let mut notes = digest::refit(&mut parts.headers, &bytes);
        match &mut trailers {
            None => drop(parts.headers.insert(CONTENT_LENGTH, bytes.len().into())),
            Some(trailers) => {
                notes.extend(digest::refit(trailers, &bytes));
                // HTTP/1.1 has trailers only behind chunks.
                parts.headers.remove(CONTENT_LENGTH);
            }
        }
        let bytes = Bytes::from_owner(Held(bytes, whole.room.clone()));
        // What it holds is of no concern any longer.
        let content = Content::Nothing;
        let whole = Whole { bytes, trailers, content, ..whole };
        Ok((Payload::Read(whole), notes))
    }

    /// The body that was read, or an empty one where a method that has a body as a rule has none.
    fn whole(self, parts: &Parts, spender: &Spender<'_>) -> Result<Whole, Rejection> {
        match self {
            Payload::Read(whole) if !matches!(whole.content, Content::Other) => Ok(whole),
            Payload::Streaming(body) if body.size_hint().exact() == Some(0) => {
                let (content, quotes) = (Content::Nothing, Quotes::default());
                Ok(Whole { bytes: Bytes::new(), trailers: None, content, quotes, room: None })
            }
            Payload::Read(_) | Payload::Streaming(_) => {
                let kind = if puts_json(spender).is_empty() { "a form" } else { "JSON" };
                let sent =
                    if parts.headers.contains_key(CONTENT_TYPE) { "of another type" } else { "of no type" };
                Err(spender
                    .bad(format!("a secret is to be put into the body as {kind}, but the body is {sent}")))
            }
        }
    }
}

/// The secrets that are put in by a path in the JSON body.
fn puts_json<'s>(spender: &'s Spender<'_>) -> Vec<(Vec<&'s str>, &'s SecretName)> {
    let spends = spender.grant.spends().iter();
    let put = spends.filter_map(|spend| match &spend.style {
        Style::Json(path) => path.keys().map(|keys| (keys, &spend.name)),
        _ => None,
    });
    put.collect()
}

/// The secrets that are put in as a field of the form.
fn puts_form<'s>(spender: &'s Spender<'_>) -> Vec<(&'s str, &'s SecretName)> {
    let spends = spender.grant.spends().iter();
    let put = spends.filter_map(|spend| match &spend.style {
        Style::Form(field) => Some((&**field, &spend.name)),
        _ => None,
    });
    put.collect()
}

/// What the body becomes; nothing if it stays what it is.
fn changed(whole: &Whole, parts: &Parts, spender: &Spender<'_>) -> Result<Option<Changed>, Rejection> {
    let (in_json, in_form) = (puts_json(spender), puts_form(spender));
    let misfit = |what: &str, is: &str| {
        Err(spender.bad(format!("a secret is to be put into {what}, but the body is {is}")))
    };
    let changed = match &whole.content {
        Content::Json if !in_form.is_empty() => return misfit("a form", "JSON"),
        Content::Form | Content::Multipart(_) if !in_json.is_empty() => return misfit("JSON", "a form"),
        Content::Json => json_with(std::str::from_utf8(&whole.bytes).unwrap_or_default(), &in_json, spender)?,
        Content::Form => form_with(&whole.bytes, &in_form, spender)?,
        Content::Multipart(fields) => {
            let made = multipart::make(fields, &in_form, spender)?;
            return Ok(made.map(|made| Changed { bytes: made.bytes, content_type: Some(made.content_type) }));
        }
        Content::Other => None,
        Content::Nothing => return from_nothing(&in_json, &in_form, parts, spender),
        Content::Unreadable(_) if in_json.is_empty() && in_form.is_empty() => None,
        Content::Unreadable(why) => {
            return Err(spender.bad(format!(
                "a secret is to be put into the body, but that is not what its Content-Type says: {why}"
            )));
        }
    };
    Ok(changed.map(|bytes| Changed { bytes, content_type: None }))
}

fn json_with(
    text: &str,
    puts: &[(Vec<&str>, &SecretName)],
    spender: &Spender<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let mut changed = json::fill(text, spender)?;
    if changed.is_some() || !puts.is_empty() {
        json::unambiguous(text, spender)?;
    }
    for (keys, name) in puts {
        let now = match &changed {
            Some(changed) => std::str::from_utf8(changed).unwrap_or_default(),
            None => text,
        };
        changed = Some(json::put(now, keys, name, spender)?);
    }
    Ok(changed)
}

fn form_with(
    form: &[u8],
    puts: &[(&str, &SecretName)],
    spender: &Spender<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let mut changed = form::fill(form, spender)?;
    for (field, name) in puts {
        let now = changed.as_deref().map_or(form, |changed| changed.as_slice());
        changed = Some(form::put(now, field, name, spender)?);
    }
    Ok(changed)
}

/// A body where there was none.
fn from_nothing(
    in_json: &[(Vec<&str>, &SecretName)],
    in_form: &[(&str, &SecretName)],
    parts: &Parts,
    spender: &Spender<'_>,
) -> Result<Option<Changed>, Rejection> {
    if in_json.is_empty() && in_form.is_empty() {
        return Ok(None);
    }
    if [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(&parts.method) {
        let message = format!(
            "a secret is to be put into the body, and {} has none: name the rule's methods",
            parts.method
        );
        return Err(spender.bad(message));
    }
    let (bytes, kind, said) = match in_form {
        [] => (json_with("{}", in_json, spender)?, "application/json", Kind::Json),
        _ => (form_with(b"", in_form, spender)?, "application/x-www-form-urlencoded", Kind::Form),
    };
    let keeps_type = kind_of(&parts.headers)? == Some(said);
    Ok(bytes.map(|bytes| Changed { bytes, content_type: (!keeps_type).then(|| kind.to_owned()) }))
}

/// Whether the rule signs anew what stands in this header.
fn signs(spender: &Spender<'_>, header: &HeaderName) -> bool {
    spender.grant.signing().is_some_and(|signing| signing.sets(header))
}

/// The header by which a client says that its body is signed.
pub(in crate::inject) fn signature(headers: &HeaderMap) -> Option<HeaderName> {
    let signs = |name: &HeaderName| {
        name.as_str().split(['-', '_']).any(|word| matches!(word, "signature" | "sig" | "hmac"))
    };
    let scheme = headers.get(AUTHORIZATION).map(|value| value.as_bytes().to_ascii_lowercase());
    let schemes: [&[u8]; 4] = [b"aws4-", b"signature ", b"hmac", b"oauth "];
    let by_scheme = scheme.is_some_and(|value| schemes.iter().any(|scheme| value.starts_with(scheme)));
    headers.keys().find(|name| signs(name)).cloned().or(by_scheme.then_some(AUTHORIZATION))
}
