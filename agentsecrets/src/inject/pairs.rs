//! `name=value&name=value`: the query and URL-encoded forms, pair by pair, so that all but what is filled
//! in keeps its very bytes.

use std::borrow::Cow;
use std::ops::Range;

use zeroize::Zeroizing;

use super::placeholder::Edit;
use super::url::encoded;
use crate::inject::injector::Spender;
use crate::policy::access_request::{Place, Spot};
use crate::types::rejection::Rejection;

/// One pair, as it stands in the text.
pub(super) struct Pair {
    pub name: Range<usize>,
    /// Nothing where there is no `=`.
    pub value: Option<Range<usize>>,
}

/// The pairs of `text`.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair> {
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

/// A name or value as the server reads it.
pub(super) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_encoding::percent_decode(&spaced).collect())
}

/// A name or value in `text`, as the server reads it.
pub(super) fn at<'t>(text: &'t [u8], range: &Range<usize>) -> Cow<'t, [u8]> {
    decoded(text.get(range.clone()).unwrap_or_default())
}

/// Where in the query or form a value stands.
pub(super) fn spot(place: Place, name: &[u8]) -> Spot {
    Spot::new(place, &*String::from_utf8_lossy(name))
}

/// What is to stand in the place of which part of `text`. In a query, a parameter's name may be a
/// placeholder; in a form, only values are filled.
pub(super) fn fill(text: &[u8], place: Place, spender: &Spender<'_>) -> Result<Vec<Edit>, Rejection> {
    let mut edits = Vec::new();
    for pair in pairs(text) {
        let name = at(text, &pair.name);
        if place == Place::Query
            && let Some(filled) = spender.fill(&name, || Spot::new(place, ""))?
        {
            edits.push((pair.name.clone(), Zeroizing::new(encoded(&filled.bytes).as_bytes().to_vec())));
        }
        if let Some(range) = pair.value
            && let Some(filled) = spender.fill(&at(text, &range), || spot(place, &name))?
        {
            edits.push((range, Zeroizing::new(encoded(&filled.bytes).as_bytes().to_vec())));
        }
    }
    Ok(edits)
}

/// `name=value`, encoded.
pub(super) fn pair(name: &str, value: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}={}", *encoded(name.as_bytes()), *encoded(value)))
}
