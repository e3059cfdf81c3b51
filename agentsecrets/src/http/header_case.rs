//! How a client spelt the names of its `X-AS-Inject-…` headers: HTTP ignores their case, and so does the
//! HTTP library, but what they end in is the name of a parameter or a field, whose case counts.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName};

const PREFIX: &str = "x-as-inject-";

/// The names of one request's headers, as they came. It travels with the request, in its extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spelling(Vec<Box<str>>);

/// Those of the requests of one connection that were read but not answered yet, in order.
#[derive(Debug, Default)]
pub(super) struct Spellings(Mutex<VecDeque<Spelling>>);

impl Spelling {
    /// Of those of `names` that matter.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().filter(|name| matters(name)).map(Into::into).collect())
    }

    /// How `header` was spelt, if that is known.
    pub fn of(&self, header: &HeaderName) -> Option<&str> {
        self.0.iter().find(|name| name.eq_ignore_ascii_case(header.as_str())).map(|name| &**name)
    }

    /// Whether there is nothing to know.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Spellings {
    /// Keeps that of a request that was just read.
    pub(super) fn push(&self, spelling: Spelling) {
        if !spelling.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(spelling);
        }
    }

    /// That of the request with these `headers`, which is the next one.
    pub(super) fn pop(&self, headers: &HeaderMap) -> Option<Spelling> {
        let asks = headers.keys().any(|name| matters(name.as_str()));
        asks.then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()).flatten()
    }
}

fn matters(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_own_spelling_in_order() {
        let spellings = Spellings::default();
        for names in [&["Host", "X-AS-Inject-Query-apiKey"][..], &["Host"], &["x-as-inject-FORM-Id"]] {
            spellings.push(Spelling::new(names.iter().copied()));
        }
        let next = |name: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), "K".parse().unwrap())]);
            spellings
                .pop(&headers)
                .map(|spelling| spelling.of(&HeaderName::from_static(name)).map(str::to_owned))
        };
        assert_eq!(next("x-as-inject-query-apikey").flatten().as_deref(), Some("X-AS-Inject-Query-apiKey"));
        assert_eq!(next("host"), None);
        assert_eq!(next("x-as-inject-form-id").flatten().as_deref(), Some("x-as-inject-FORM-Id"));
        assert_eq!(next("x-as-inject-form-id"), None);
    }
}
