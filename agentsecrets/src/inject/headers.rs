//! Secrets in headers and cookies.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::inject::injector::Injector;
use crate::policy::injection::InjectionStyle;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::hop_by_hop;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Fills the placeholders in headers and inserts injected headers.
pub(super) fn fill(headers: &mut HeaderMap, injector: &Injector<'_>) -> Result<(), Rejection> {
    for (name, value) in headers.iter_mut() {
        if name == COOKIE {
            if let Some(filled) = fill_cookies(value.as_bytes(), injector)? {
                *value = filled;
            }
            continue;
        }
        let filled = match decode_basic(name, value.as_bytes()) {
            Some(pair) => {
                let filled = injector.fill(&pair, || InjectionPoint::header(name))?;
                filled.map(|filled| (filled.name, encode_basic(&filled.bytes)))
            }
            None => None,
        };
        let filled = match filled {
            Some(filled) => Some(filled),
            None => {
                let filled = injector.fill(value.as_bytes(), || InjectionPoint::header(name))?;
                filled.map(|filled| (filled.name, filled.bytes))
            }
        };
        if let Some((name, filled)) = filled {
            *value = injector.header_value(&name, &filled)?;
        }
    }
    for secret_use in injector.grant.secret_uses() {
        let (name, style) = (&secret_use.name, &secret_use.style);
        match style {
            InjectionStyle::Bearer => {
                let value = Zeroizing::new([b"Bearer ", injector.value(name)?.expose()].concat());
                headers.insert(AUTHORIZATION, injector.header_value(name, &value)?);
            }
            InjectionStyle::Basic => {
                let value = injector.value(name)?.expose();
                if !value.contains(&b':') {
                    let message =
                        format!("secret '{name}' is not 'user:password', which Basic authentication needs");
                    return Err(injector.bad_request(message));
                }
                headers.insert(AUTHORIZATION, injector.header_value(name, &encode_basic(value))?);
            }
            InjectionStyle::Header(header) => {
                if hop_by_hop::is_framing(header.as_str()) {
                    let message =
                        format!("the header '{header}' frames the request and cannot carry a secret");
                    return Err(injector.bad_request(message));
                }
                let value = injector.header_value(name, injector.value(name)?.expose())?;
                headers.insert(header.clone(), value);
            }
            InjectionStyle::Cookie(cookie) => set_cookie(headers, cookie, name, injector)?,
            _ => {}
        }
    }
    Ok(())
}

/// Decodes `user:password` from a Basic header.
pub(super) fn decode_basic(name: &HeaderName, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if name != AUTHORIZATION && name != PROXY_AUTHORIZATION {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD_PAD_INDIFFERENT.decode(rest.trim_ascii()).ok().map(Zeroizing::new)
}

fn encode_basic(pair: &[u8]) -> Zeroizing<Vec<u8>> {
    let pair = Zeroizing::new(STANDARD.encode(pair));
    Zeroizing::new([b"Basic ", pair.as_bytes()].concat())
}

/// Splits a `Cookie` header into pairs of a cookie's name and its full text.
pub(super) fn parse_cookies(value: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    value.split(|byte| *byte == b';').map(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        (String::from_utf8_lossy(name).into_owned(), pair)
    })
}

fn fill_cookies(value: &[u8], injector: &Injector<'_>) -> Result<Option<HeaderValue>, Rejection> {
    let mut whole = Zeroizing::new(Vec::new());
    let mut first = None;
    for (number, (cookie, pair)) in parse_cookies(value).enumerate() {
        let filled = injector.fill(pair, || InjectionPoint::new(LocationKind::Cookie, cookie))?;
        let bytes = match &filled {
            Some(filled) if has_cookie_delimiter(&filled.bytes) => {
                return Err(injector.invalid_value(&filled.name, "a cookie"));
            }
            Some(filled) => &filled.bytes,
            None => pair,
        };
        // Reallocated explicitly, so that no copy remains unwiped.
        let mut longer = Zeroizing::new(Vec::with_capacity(whole.len() + bytes.len() + 1));
        longer.extend_from_slice(&whole);
        longer.extend_from_slice(if number == 0 { b"" } else { b";" });
        longer.extend_from_slice(bytes);
        whole = longer;
        first = first.or(filled.map(|filled| filled.name));
    }
    first.map(|name| injector.header_value(&name, &whole)).transpose()
}

/// Whether a server could read several cookies in `pair`.
fn has_cookie_delimiter(pair: &[u8]) -> bool {
    pair.iter().any(|byte| *byte == b';' || byte.is_ascii_control())
}

/// Sets a cookie, replacing any of the same name.
fn set_cookie(
    headers: &mut HeaderMap,
    cookie: &str,
    name: &SecretName,
    injector: &Injector<'_>,
) -> Result<(), Rejection> {
    let value = injector.value(name)?.expose();
    if has_cookie_delimiter(value) {
        return Err(injector.invalid_value(name, "a cookie"));
    }
    let mut pairs = Vec::new();
    for header in headers.get_all(COOKIE) {
        let others = parse_cookies(header.as_bytes()).filter(|(other, _)| other != cookie);
        pairs.extend(others.map(|(_, pair)| pair.trim_ascii()).filter(|pair| !pair.is_empty()));
    }
    let own = Zeroizing::new([cookie.as_bytes(), b"=", value].concat());
    pairs.push(&own);
    let whole = Zeroizing::new(pairs.join(&b"; "[..]));
    let whole = injector.header_value(name, &whole)?;
    headers.insert(COOKIE, whole);
    Ok(())
}
