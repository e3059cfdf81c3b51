//! Percent-encoding, and pairs `name=value&name=value` in queries and URL-encoded forms. Everything that is not filled keeps
//! its bytes.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use zeroize::Zeroizing;

use super::placeholder::Edit;
use crate::inject::injector::Injector;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::rejection::Rejection;

/// All except RFC 3986's unreserved characters, which no server interprets.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes `bytes` for a path, query or form.
pub(super) fn encode_component(bytes: &[u8]) -> Zeroizing<String> {
    let size = percent_encode(bytes, RESERVED).map(str::len).sum();
    let mut encoded = Zeroizing::new(String::with_capacity(size));
    encoded.extend(percent_encode(bytes, RESERVED));
    encoded
}

/// Decodes a path segment as the server does.
pub(super) fn decode_segment(text: &str) -> Cow<'_, [u8]> {
    percent_decode(text.as_bytes()).into()
}

/// Byte ranges of one pair.
pub(super) struct Pair {
    pub name: Range<usize>,
    /// `None` without an `=`.
    pub value: Option<Range<usize>>,
}

/// Splits `text` into pairs.
pub(super) fn parse(text: &[u8]) -> impl Iterator<Item = Pair> {
    let mut at = 0;
    text.split(|byte| *byte == b'&').map(move |pair| {
        let start = at;
        at += pair.len() + 1;
        let end = start + pair.len();
        match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => Pair { name: start..start + equals, value: Some(start + equals + 1..end) },
            None => Pair { name: start..end, value: None },
        }
    })
}

/// Decodes a name or value as the server does.
pub(super) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// Decodes the name or value at `range`.
pub(super) fn decode_range<'t>(text: &'t [u8], range: &Range<usize>) -> Cow<'t, [u8]> {
    decode(text.get(range.clone()).unwrap_or_default())
}

/// Location of a value in the query or form.
pub(super) fn injection_point(kind: LocationKind, name: &[u8]) -> InjectionPoint {
    InjectionPoint::new(kind, &*String::from_utf8_lossy(name))
}

/// Returns the edits that fill `text`. In a query, a parameter's name may be a placeholder; in a form,
/// only values are filled.
pub(super) fn fill_edits(
    text: &[u8],
    kind: LocationKind,
    injector: &Injector<'_>,
) -> Result<Vec<Edit>, Rejection> {
    let mut edits = Vec::new();
    for pair in parse(text) {
        let name = decode_range(text, &pair.name);
        if kind == LocationKind::Query
            && let Some(filled) = injector.fill(&name, || InjectionPoint::new(kind, ""))?
        {
            edits.push((
                pair.name.clone(),
                Zeroizing::new(encode_component(&filled.bytes).as_bytes().to_vec()),
            ));
        }
        if let Some(range) = pair.value
            && let Some(filled) =
                injector.fill(&decode_range(text, &range), || injection_point(kind, &name))?
        {
            edits.push((range, Zeroizing::new(encode_component(&filled.bytes).as_bytes().to_vec())));
        }
    }
    Ok(edits)
}

/// Encodes `name=value`.
pub(super) fn encode_pair(name: &str, value: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}={}", *encode_component(name.as_bytes()), *encode_component(value)))
}
