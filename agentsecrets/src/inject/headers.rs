//! Secrets in headers and cookies, and the headers that never leave.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::inject::injector::Spender;
use crate::policy::access_request::{Place, Spot};
use crate::policy::grant::Style;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Headers that say how a request is framed or routed.
const FRAMING: [HeaderName; 7] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, UPGRADE, EXPECT];

/// Whether a header is for us alone and never leaves.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-as-")
}

/// Drops what is for this hop or for us alone.
pub(super) fn strip(headers: &mut HeaderMap) {
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

/// Fills the placeholders in headers, and puts in what goes there.
pub(super) fn fill(headers: &mut HeaderMap, spender: &Spender<'_>) -> Result<(), Rejection> {
    for (name, value) in headers.iter_mut() {
        if name == COOKIE {
            if let Some(filled) = fill_cookies(value.as_bytes(), spender)? {
                *value = filled;
            }
            continue;
        }
        let filled = match basic(name, value.as_bytes()) {
            Some(pair) => {
                let filled = spender.fill(&pair, || Spot::header(name))?;
                filled.map(|filled| (filled.name, basic_value(&filled.bytes)))
            }
            None => None,
        };
        let filled = match filled {
            Some(filled) => Some(filled),
            None => {
                let filled = spender.fill(value.as_bytes(), || Spot::header(name))?;
                filled.map(|filled| (filled.name, filled.bytes))
            }
        };
        if let Some((name, filled)) = filled {
            *value = spender.header(&name, &filled)?;
        }
    }
    for spend in spender.grant.spends() {
        let (name, style) = (&spend.name, &spend.style);
        match style {
            Style::Bearer => {
                let value = Zeroizing::new([b"Bearer ", spender.value(name)?.expose()].concat());
                headers.insert(AUTHORIZATION, spender.header(name, &value)?);
            }
            Style::Basic => {
                let value = spender.value(name)?.expose();
                if !value.contains(&b':') {
                    let message = format!("secret '{name}' is no user:password, as Basic needs it");
                    return Err(spender.bad(message));
                }
                headers.insert(AUTHORIZATION, spender.header(name, &basic_value(value))?);
            }
            Style::Header(header) => {
                if FRAMING.contains(header) {
                    let message =
                        format!("the header '{header}' frames the request and cannot carry a secret");
                    return Err(spender.bad(message));
                }
                let value = spender.header(name, spender.value(name)?.expose())?;
                headers.insert(header.clone(), value);
            }
            Style::Cookie(cookie) => set_cookie(headers, cookie, name, spender)?,
            _ => {}
        }
    }
    Ok(())
}

/// `user:password` of a Basic header.
pub(super) fn basic(name: &HeaderName, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if name != AUTHORIZATION && name != PROXY_AUTHORIZATION {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD_PAD_INDIFFERENT.decode(rest.trim_ascii()).ok().map(Zeroizing::new)
}

fn basic_value(pair: &[u8]) -> Zeroizing<Vec<u8>> {
    let pair = Zeroizing::new(STANDARD.encode(pair));
    Zeroizing::new([b"Basic ", pair.as_bytes()].concat())
}

/// The cookies of a `Cookie` header: each one's name, and the whole of it with its name.
pub(super) fn cookies(value: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    value.split(|byte| *byte == b';').map(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        (String::from_utf8_lossy(name).into_owned(), pair)
    })
}

fn fill_cookies(value: &[u8], spender: &Spender<'_>) -> Result<Option<HeaderValue>, Rejection> {
    let mut whole = Zeroizing::new(Vec::new());
    let mut first = None;
    for (number, (cookie, pair)) in cookies(value).enumerate() {
        let filled = spender.fill(pair, || Spot::new(Place::Cookie, cookie))?;
        let bytes = match &filled {
            Some(filled) if ends_cookie(&filled.bytes) => return Err(spender.unfit(&filled.name, "a cookie")),
            Some(filled) => &filled.bytes,
            None => pair,
        };
        // Grown by hand, so that no unwiped copy is left behind.
        let mut longer = Zeroizing::new(Vec::with_capacity(whole.len() + bytes.len() + 1));
        longer.extend_from_slice(&whole);
        longer.extend_from_slice(if number == 0 { b"" } else { b";" });
        longer.extend_from_slice(bytes);
        whole = longer;
        first = first.or(filled.map(|filled| filled.name));
    }
    first.map(|name| spender.header(&name, &whole)).transpose()
}

/// Whether a server could read more than one cookie in it.
fn ends_cookie(pair: &[u8]) -> bool {
    pair.iter().any(|byte| *byte == b';' || byte.is_ascii_control())
}

/// Puts in the cookie, in the place of any of the same name.
fn set_cookie(
    headers: &mut HeaderMap,
    cookie: &str,
    name: &SecretName,
    spender: &Spender<'_>,
) -> Result<(), Rejection> {
    let value = spender.value(name)?.expose();
    if ends_cookie(value) {
        return Err(spender.unfit(name, "a cookie"));
    }
    let mut pairs = Vec::new();
    for header in headers.get_all(COOKIE) {
        let others = cookies(header.as_bytes()).filter(|(other, _)| other != cookie);
        pairs.extend(others.map(|(_, pair)| pair.trim_ascii()).filter(|pair| !pair.is_empty()));
    }
    let own = Zeroizing::new([cookie.as_bytes(), b"=", value].concat());
    pairs.push(&own);
    let whole = Zeroizing::new(pairs.join(&b"; "[..]));
    let whole = spender.header(name, &whole)?;
    headers.insert(COOKIE, whole);
    Ok(())
}
