//! Original case of `X-AS-Inject-…` header names. HTTP and hyper ignore case, but these names end in the
//! name of a parameter or form field, which is case-sensitive.

use crate::types::sync::MutexExt;
use std::collections::VecDeque;
use std::sync::Mutex;

use http::{HeaderMap, HeaderName};

/// Prefix of the headers that request injections.
pub(crate) const INJECT_PREFIX: &str = "x-as-inject-";

/// Header names of one request in their original case. Stored in the request's extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeaderCaseMap(Vec<Box<str>>);

/// Header names of the requests of one connection that were parsed and not yet handled, in order.
#[derive(Debug, Default)]
pub(super) struct HeaderCaseQueue(Mutex<VecDeque<HeaderCaseMap>>);

impl HeaderCaseMap {
    /// Keeps those of `names` that are injection headers.
    pub(crate) fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().filter(|name| is_inject_header(name)).map(Into::into).collect())
    }

    /// Returns `header` in its original case, if known.
    pub(crate) fn get(&self, header: &HeaderName) -> Option<&str> {
        self.0.iter().find(|name| name.eq_ignore_ascii_case(header.as_str())).map(|name| &**name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl HeaderCaseQueue {
    /// Queues the header names of a request that was just parsed.
    pub(super) fn push(&self, header_case: HeaderCaseMap) {
        if !header_case.is_empty() {
            self.0.lock_ignoring_poison().push_back(header_case);
        }
    }

    /// Takes the header names of the next request, which has these `headers`.
    pub(super) fn pop(&self, headers: &HeaderMap) -> Option<HeaderCaseMap> {
        let asks = headers.keys().any(|name| is_inject_header(name.as_str()));
        asks.then(|| self.0.lock_ignoring_poison().pop_front()).flatten()
    }
}

fn is_inject_header(name: &str) -> bool {
    name.get(..INJECT_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(INJECT_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_get_their_own_header_case_in_order() {
        let header_cases = HeaderCaseQueue::default();
        for names in [&["Host", "X-AS-Inject-Query-apiKey"][..], &["Host"], &["x-as-inject-FORM-Id"]] {
            header_cases.push(HeaderCaseMap::new(names.iter().copied()));
        }
        let next = |name: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), "K".parse().unwrap())]);
            header_cases
                .pop(&headers)
                .map(|header_case| header_case.get(&HeaderName::from_static(name)).map(str::to_owned))
        };
        assert_eq!(next("x-as-inject-query-apikey").flatten().as_deref(), Some("X-AS-Inject-Query-apiKey"));
        assert_eq!(next("host"), None);
        assert_eq!(next("x-as-inject-form-id").flatten().as_deref(), Some("x-as-inject-FORM-Id"));
        assert_eq!(next("x-as-inject-form-id"), None);
    }
}
