//! Secrets in the path and the query. A check afterwards ensures that filling did not change the
//! request's target.

use http::uri::{PathAndQuery, Uri};
use zeroize::Zeroizing;

use super::urlencoded::{self, decode, decode_segment, encode_component};
use crate::inject::injector::Injector;
use crate::policy::injection::InjectionStyle;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;
use crate::types::secret::Secret;

/// Returns the URL that leaves in place of `original`.
pub(super) fn fill(original: &Uri, injector: &Injector<'_>) -> Result<Uri, Rejection> {
    let path = fill_path(original.path(), injector)?;
    let query = fill_query(original.query(), injector)?;
    let filled = build_uri(&path, query.as_deref().map(String::as_str), injector)?;
    check_unchanged(original, &filled, injector)?;
    Ok(filled)
}

/// Whether the grant injects a secret into this location kind.
fn has_injection_in(injector: &Injector<'_>, kind: LocationKind) -> bool {
    injector
        .grant
        .secret_uses()
        .iter()
        .filter_map(|secret_use| secret_use.style.injection_point())
        .any(|point| point.kind == kind)
}

fn fill_path(path: &str, injector: &Injector<'_>) -> Result<Zeroizing<String>, Rejection> {
    if !has_injection_in(injector, LocationKind::Path) {
        return Ok(Zeroizing::new(path.to_owned()));
    }
    let mut segments = Vec::new();
    let mut first = None;
    for text in path.split('/') {
        let plain = decode_segment(text);
        match injector.fill(&plain, || InjectionPoint::new(LocationKind::Path, ""))? {
            Some(filled) => {
                segments.push(encode_component(&filled.bytes));
                first = first.or(Some(filled.name));
            }
            None => segments.push(Zeroizing::new(text.to_owned())),
        }
    }
    for secret_use in injector.grant.secret_uses() {
        let InjectionStyle::Path(literal) = &secret_use.style else { continue };
        replace_literal(&mut segments, literal, &secret_use.name, injector)?;
        first = first.or(Some(secret_use.name.clone()));
    }
    let size = segments.iter().map(|segment| segment.len() + 1).sum();
    let mut whole = Zeroizing::new(String::with_capacity(size));
    for (number, segment) in segments.iter().enumerate() {
        whole.push_str(if number == 0 { "" } else { "/" });
        whole.push_str(segment);
    }
    let Some(name) = first else { return Ok(whole) };
    match injector.grant.allows_path(&whole) {
        _ if count_separators(&whole) > count_separators(path) => {
            Err(injector.invalid_value(&name, "a path"))
        }
        Err(_) => Err(injector.invalid_value(&name, "a path")),
        Ok(false) => {
            Err(injector.bad_request(format!("with '{name}' filled in, the rule does not allow the path")))
        }
        Ok(true) => Ok(whole),
    }
}

/// Counts the slashes that some server could see.
fn count_separators(path: &str) -> usize {
    let plain = decode_segment(path);
    plain.iter().filter(|byte| matches!(byte, b'/' | b'\\')).count()
}

/// Replaces `literal`, which must occur in the path exactly once, with the secret.
fn replace_literal(
    segments: &mut [Zeroizing<String>],
    literal: &str,
    name: &SecretName,
    injector: &Injector<'_>,
) -> Result<(), Rejection> {
    let count = |text: &str| String::from_utf8_lossy(&decode_segment(text)).matches(literal).count();
    let mut holding = segments.iter_mut().filter(|text| count(text) > 0);
    let (Some(holder), None) = (holding.next(), holding.next()) else {
        let message = format!(
            "the rule replaces '{literal}' in the path with '{name}', but the path does not contain '{literal}' exactly once"
        );
        return Err(injector.bad_request(message));
    };
    let plain = Zeroizing::new(decode_segment(holder).into_owned());
    let (before, after) = std::str::from_utf8(&plain)
        .ok()
        .filter(|_| count(holder) == 1)
        .and_then(|plain| plain.split_once(literal))
        .ok_or_else(|| injector.bad_request(format!("the path must contain '{literal}' exactly once")))?;
    let value = injector.value(name)?.expose();
    *holder = encode_component(&Zeroizing::new([before.as_bytes(), value, after.as_bytes()].concat()));
    Ok(())
}

/// Fills the query's placeholders and sets its injected parameters. All other parameters keep their
/// bytes.
fn fill_query(query: Option<&str>, injector: &Injector<'_>) -> Result<Option<Zeroizing<String>>, Rejection> {
    let mut query = query.map(|query| Zeroizing::new(query.to_owned()));
    if !has_injection_in(injector, LocationKind::Query) {
        return Ok(query);
    }
    if let Some(text) = &query {
        let edits = urlencoded::fill_edits(text.as_bytes(), LocationKind::Query, injector)?;
        let filled = super::placeholder::splice(text.as_bytes(), &edits);
        query =
            Some(Zeroizing::new(std::str::from_utf8(&filled).map_err(|_| invalid_url(injector))?.to_owned()));
    }
    for secret_use in injector.grant.secret_uses() {
        if let InjectionStyle::Query(parameter) = &secret_use.style {
            let value = injector.value(&secret_use.name)?;
            query = Some(set_parameter(query.as_deref().map_or("", String::as_str), parameter, value));
        }
    }
    Ok(query)
}

/// Sets a parameter, replacing any of the same name.
fn set_parameter(query: &str, name: &str, value: &Secret) -> Zeroizing<String> {
    let others = query.split('&').filter(|pair| {
        let known = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && *decode(known.as_bytes()) != *name.as_bytes()
    });
    let parameter = urlencoded::encode_pair(name, value.expose());
    Zeroizing::new(others.chain([parameter.as_str()]).collect::<Vec<_>>().join("&"))
}

fn build_uri(path: &str, query: Option<&str>, injector: &Injector<'_>) -> Result<Uri, Rejection> {
    let path = match query {
        Some(query) => Zeroizing::new(format!("{path}?{query}")),
        None => Zeroizing::new(path.to_owned()),
    };
    let path = PathAndQuery::try_from(path.as_bytes()).map_err(|_| invalid_url(injector))?;
    Uri::builder()
        .scheme(injector.target.scheme.as_str())
        .authority(injector.target.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| invalid_url(injector))
}

/// Checks that filling changed nothing that policy evaluated: the server, the path (unless a secret is in
/// it) and the parameter names, apart from injected ones.
fn check_unchanged(original: &Uri, filled: &Uri, injector: &Injector<'_>) -> Result<(), Rejection> {
    let injects = |name: &[u8]| {
        let mut styles = injector.grant.secret_uses().iter().map(|secret_use| &secret_use.style);
        styles.any(|style| matches!(style, InjectionStyle::Query(parameter) if parameter.as_bytes() == name))
    };
    let parameters = |uri: &Uri| -> Vec<Vec<u8>> {
        let pairs = uri.query().unwrap_or_default().split('&');
        let names =
            pairs.map(|pair| decode(pair.split('=').next().unwrap_or_default().as_bytes()).into_owned());
        names.filter(|name| !injects(name)).filter(|name| !name.is_empty()).collect()
    };
    let (before, after) = (parameters(original), parameters(filled));
    // A placeholder may be a parameter's name.
    let same = if has_injection_in(injector, LocationKind::Query) {
        before.len() == after.len()
    } else {
        before == after
    };
    let here = filled.authority().is_some_and(|authority| *authority == *injector.target.authority());
    let path = if has_injection_in(injector, LocationKind::Path) {
        filled.path().matches('/').count() == original.path().matches('/').count()
    } else {
        filled.path() == original.path()
    };
    if same && here && path {
        return Ok(());
    }
    Err(injector.bad_request("filling in a secret would change the request's target"))
}

fn invalid_url(injector: &Injector<'_>) -> Rejection {
    injector.bad_request("the request's URL is not valid, or too long")
}
