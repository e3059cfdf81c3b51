//! Secrets in the path and the query, and the judgement afterwards: what was filled in must not have made
//! it another request.

use std::borrow::Cow;

use http::uri::{PathAndQuery, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use zeroize::Zeroizing;

use super::pairs::{self, decoded};
use crate::inject::injector::Spender;
use crate::policy::access_request::{Place, Spot};
use crate::policy::grant::Style;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;
use crate::types::secret::Secret;

/// RFC 3986's unreserved characters, which nobody reads otherwise.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// `bytes` as they stand in a path, a query or a form.
pub(super) fn encoded(bytes: &[u8]) -> Zeroizing<String> {
    let size = percent_encode(bytes, RESERVED).map(str::len).sum();
    let mut encoded = Zeroizing::new(String::with_capacity(size));
    encoded.extend(percent_encode(bytes, RESERVED));
    encoded
}

/// A segment of a path as the server reads it.
pub(super) fn segment(text: &str) -> Cow<'_, [u8]> {
    percent_decode(text.as_bytes()).into()
}

/// The URL that leaves in the place of `judged`.
pub(super) fn fill(judged: &Uri, spender: &Spender<'_>) -> Result<Uri, Rejection> {
    let path = fill_path(judged.path(), spender)?;
    let query = fill_query(judged.query(), spender)?;
    let filled = uri(&path, query.as_deref().map(String::as_str), spender)?;
    judge_again(judged, &filled, spender)?;
    Ok(filled)
}

/// Whether the grant changes this place.
fn changes(spender: &Spender<'_>, place: Place) -> bool {
    spender.grant.spends().iter().filter_map(|spend| spend.style.spot()).any(|spot| spot.place == place)
}

fn fill_path(path: &str, spender: &Spender<'_>) -> Result<Zeroizing<String>, Rejection> {
    if !changes(spender, Place::Path) {
        return Ok(Zeroizing::new(path.to_owned()));
    }
    let mut segments = Vec::new();
    let mut first = None;
    for text in path.split('/') {
        let plain = segment(text);
        match spender.fill(&plain, || Spot::new(Place::Path, ""))? {
            Some(filled) => {
                segments.push(encoded(&filled.bytes));
                first = first.or(Some(filled.name));
            }
            None => segments.push(Zeroizing::new(text.to_owned())),
        }
    }
    for spend in spender.grant.spends() {
        let Style::Path(literal) = &spend.style else { continue };
        put(&mut segments, literal, &spend.name, spender)?;
        first = first.or(Some(spend.name.clone()));
    }
    let size = segments.iter().map(|segment| segment.len() + 1).sum();
    let mut whole = Zeroizing::new(String::with_capacity(size));
    for (number, segment) in segments.iter().enumerate() {
        whole.push_str(if number == 0 { "" } else { "/" });
        whole.push_str(segment);
    }
    let Some(name) = first else { return Ok(whole) };
    match spender.grant.allows_path(&whole) {
        _ if separates(&whole) > separates(path) => Err(spender.unfit(&name, "a path")),
        Err(_) => Err(spender.unfit(&name, "a path")),
        Ok(false) => {
            Err(spender.bad(format!("with '{name}' filled in, the path is none that the rule allows")))
        }
        Ok(true) => Ok(whole),
    }
}

/// How many slashes some server could see.
fn separates(path: &str) -> usize {
    let plain = segment(path);
    plain.iter().filter(|byte| matches!(byte, b'/' | b'\\')).count()
}

/// Puts the secret in the place of `literal`, which must stand in the path once.
fn put(
    segments: &mut [Zeroizing<String>],
    literal: &str,
    name: &SecretName,
    spender: &Spender<'_>,
) -> Result<(), Rejection> {
    let count = |text: &str| String::from_utf8_lossy(&segment(text)).matches(literal).count();
    let mut holding = segments.iter_mut().filter(|text| count(text) > 0);
    let (Some(holder), None) = (holding.next(), holding.next()) else {
        let message = format!(
            "the rule puts '{name}' in the place of '{literal}' in the path, which must stand there once"
        );
        return Err(spender.bad(message));
    };
    let plain = Zeroizing::new(segment(holder).into_owned());
    let (before, after) = std::str::from_utf8(&plain)
        .ok()
        .filter(|_| count(holder) == 1)
        .and_then(|plain| plain.split_once(literal))
        .ok_or_else(|| spender.bad(format!("'{literal}' must stand in the path once")))?;
    let value = spender.value(name)?.expose();
    *holder = encoded(&Zeroizing::new([before.as_bytes(), value, after.as_bytes()].concat()));
    Ok(())
}

/// The query with its placeholders filled and its parameters put in; parameters without one keep their
/// very bytes.
fn fill_query(query: Option<&str>, spender: &Spender<'_>) -> Result<Option<Zeroizing<String>>, Rejection> {
    let mut query = query.map(|query| Zeroizing::new(query.to_owned()));
    if !changes(spender, Place::Query) {
        return Ok(query);
    }
    if let Some(text) = &query {
        let edits = pairs::fill(text.as_bytes(), Place::Query, spender)?;
        let filled = super::placeholder::splice(text.as_bytes(), &edits);
        query = Some(Zeroizing::new(std::str::from_utf8(&filled).map_err(|_| bad_url(spender))?.to_owned()));
    }
    for spend in spender.grant.spends() {
        if let Style::Query(parameter) = &spend.style {
            let value = spender.value(&spend.name)?;
            query = Some(with_parameter(query.as_deref().map_or("", String::as_str), parameter, value));
        }
    }
    Ok(query)
}

/// `query` with this parameter in place of any of the same name.
fn with_parameter(query: &str, name: &str, value: &Secret) -> Zeroizing<String> {
    let others = query.split('&').filter(|pair| {
        let known = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && *decoded(known.as_bytes()) != *name.as_bytes()
    });
    let parameter = pairs::pair(name, value.expose());
    Zeroizing::new(others.chain([parameter.as_str()]).collect::<Vec<_>>().join("&"))
}

fn uri(path: &str, query: Option<&str>, spender: &Spender<'_>) -> Result<Uri, Rejection> {
    let path = match query {
        Some(query) => Zeroizing::new(format!("{path}?{query}")),
        None => Zeroizing::new(path.to_owned()),
    };
    let path = PathAndQuery::try_from(path.as_bytes()).map_err(|_| bad_url(spender))?;
    Uri::builder()
        .scheme(spender.target.scheme.as_str())
        .authority(spender.target.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| bad_url(spender))
}

/// What was filled in must not have changed what was judged: the server, the path unless a secret stands
/// there, and which parameters the query has but for those that the grant puts in.
fn judge_again(judged: &Uri, filled: &Uri, spender: &Spender<'_>) -> Result<(), Rejection> {
    let injects = |name: &[u8]| {
        let mut styles = spender.grant.spends().iter().map(|spend| &spend.style);
        styles.any(|style| matches!(style, Style::Query(parameter) if parameter.as_bytes() == name))
    };
    let parameters = |uri: &Uri| -> Vec<Vec<u8>> {
        let pairs = uri.query().unwrap_or_default().split('&');
        let names =
            pairs.map(|pair| decoded(pair.split('=').next().unwrap_or_default().as_bytes()).into_owned());
        names.filter(|name| !injects(name)).filter(|name| !name.is_empty()).collect()
    };
    let (before, after) = (parameters(judged), parameters(filled));
    // A placeholder may be a parameter's name.
    let same = if changes(spender, Place::Query) { before.len() == after.len() } else { before == after };
    let here = filled.authority().is_some_and(|authority| *authority == *spender.target.authority());
    let path = if changes(spender, Place::Path) {
        filled.path().matches('/').count() == judged.path().matches('/').count()
    } else {
        filled.path() == judged.path()
    };
    if same && here && path {
        return Ok(());
    }
    Err(spender.bad("filling in a secret would make it another request"))
}

fn bad_url(spender: &Spender<'_>) -> Rejection {
    spender.bad("the request's URL is not valid, or too long")
}
