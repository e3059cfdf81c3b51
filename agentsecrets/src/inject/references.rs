//! Collects the secrets that a request names and their locations, for the policy decision. The request is
//! not changed.

use std::collections::HashSet;

use http::header::COOKIE;
use http::request::Parts;

use super::headers::{decode_basic, parse_cookies};
use super::placeholder::Placeholders;
use super::urlencoded::{self, decode_range, decode_segment};
use crate::http::header_case::HeaderCaseMap;
use crate::inject::proxy_headers::{RequestedInjections, requested};
use crate::policy::access_request::SecretReference;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::hop_by_hop::is_internal;
use crate::types::rejection::{ErrorCode, Rejection};

/// Maximum number of locations in one request that name secrets.
const MAX_REFERENCES: usize = 1000;

/// The secrets that a request names, without duplicates.
#[derive(Default)]
pub(crate) struct References {
    references: Vec<SecretReference>,
    seen: HashSet<SecretReference>,
}

impl References {
    /// Collects the references in headers, cookies, path, query and injection headers.
    pub(crate) fn from_head(parts: &Parts, placeholders: &Placeholders) -> Result<Self, Rejection> {
        let mut references = Self::default();
        for (name, value) in &parts.headers {
            if is_internal(name) {
                continue;
            }
            if name == COOKIE {
                for (cookie, pair) in parse_cookies(value.as_bytes()) {
                    references.add_placeholders(placeholders, pair, || {
                        InjectionPoint::new(LocationKind::Cookie, cookie)
                    })?;
                }
                continue;
            }
            references.add_placeholders(placeholders, value.as_bytes(), || InjectionPoint::header(name))?;
            if let Some(pair) = decode_basic(name, value.as_bytes()) {
                references.add_placeholders(placeholders, &pair, || InjectionPoint::header(name))?;
            }
        }
        for text in parts.uri.path().split('/') {
            references.add_placeholders(placeholders, &decode_segment(text), || {
                InjectionPoint::new(LocationKind::Path, "")
            })?;
        }
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        for pair in urlencoded::parse(query) {
            let name = decode_range(query, &pair.name);
            references
                .add_placeholders(placeholders, &name, || InjectionPoint::new(LocationKind::Query, ""))?;
            if let Some(value) = pair.value {
                references.add_placeholders(placeholders, &decode_range(query, &value), || {
                    urlencoded::injection_point(LocationKind::Query, &name)
                })?;
            }
        }
        for reference in requested(&parts.headers, parts.extensions.get::<HeaderCaseMap>())? {
            references.add(reference)?;
        }
        for reference in
            parts.extensions.get::<RequestedInjections>().iter().flat_map(|requested| requested.references())
        {
            references.add(reference.clone())?;
        }
        Ok(references)
    }

    /// Returns all references.
    pub(crate) fn as_slice(&self) -> &[SecretReference] {
        &self.references
    }

    /// Adds the placeholders in `bytes`, which are located at `point`.
    pub(super) fn add_placeholders(
        &mut self,
        placeholders: &Placeholders,
        bytes: &[u8],
        point: impl FnOnce() -> InjectionPoint,
    ) -> Result<(), Rejection> {
        let mut matches = placeholders.find_iter(bytes).peekable();
        if matches.peek().is_none() {
            return Ok(());
        }
        let point = point();
        matches.try_for_each(|matched| self.add(SecretReference::placeholder(matched.name, point.clone())))
    }

    fn add(&mut self, reference: SecretReference) -> Result<(), Rejection> {
        if self.seen.contains(&reference) {
            return Ok(());
        }
        if self.references.len() == MAX_REFERENCES {
            let message = "the request names secrets in more than 1000 places";
            return Err(Rejection::new(ErrorCode::BadRequest, message));
        }
        self.seen.insert(reference.clone());
        self.references.push(reference);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    fn references(uri: &str, headers: &[(&str, &str)]) -> Vec<(String, LocationKind)> {
        let placeholders = Placeholders::new([("A".parse().unwrap(), None), ("B".parse().unwrap(), None)]);
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let references = References::from_head(&parts, &placeholders).unwrap();
        let kind = |reference: &SecretReference| reference.style.injection_point().unwrap().kind;
        references.as_slice().iter().map(|r| (r.name.to_string(), kind(r))).collect()
    }

    fn one(name: &str, kind: LocationKind) -> Vec<(String, LocationKind)> {
        vec![(name.to_owned(), kind)]
    }

    #[test]
    fn location_kinds_are_distinguished() {
        for (header, kind) in [
            ("authorization", LocationKind::Auth),
            ("proxy-authorization", LocationKind::Auth),
            ("x-api-key", LocationKind::Auth),
            ("apikey", LocationKind::Auth),
            ("private-token", LocationKind::Auth),
            ("x-goog-api-key", LocationKind::Auth),
            ("x-amz-security-token", LocationKind::Auth),
            ("x-auth", LocationKind::Auth),
            ("idempotency-key", LocationKind::Header),
            ("sec-websocket-key", LocationKind::Header),
            ("x-csrf-token", LocationKind::Header),
            ("x-comment", LocationKind::Header),
            ("x-monkey", LocationKind::Header),
            ("cookie", LocationKind::Cookie),
        ] {
            assert_eq!(references("/", &[(header, "x AS_SECRET_A")]), one("A", kind), "{header}");
        }
    }

    #[test]
    fn basic_credentials_are_decoded() {
        for pair in ["AS_SECRET_A:", "user:AS_SECRET_A", "{{A}}:x"] {
            let value = format!("bAsIc {}", STANDARD.encode(pair));
            assert_eq!(references("/", &[("authorization", &value)]), one("A", LocationKind::Auth), "{pair}");
        }
        assert!(references("/", &[("authorization", "Basic !!!")]).is_empty());
    }

    #[test]
    fn query_is_decoded() {
        for uri in
            ["/?k=AS_SECRET_A", "/?k=%7B%7BA%7D%7D&x=y", "/?AS%5fSECRET_A", "/?a=1&k=b+AS_SECRET_A%20c"]
        {
            assert_eq!(references(uri, &[]), one("A", LocationKind::Query), "{uri}");
        }
        // A doubly encoded placeholder is not what the server reads.
        assert!(references("/?k=AS%255FSECRET_A", &[]).is_empty());
    }

    #[test]
    fn path_is_searched_by_segment() {
        for uri in ["/botAS_SECRET_A/send", "/a/%7B%7BA%7D%7D", "/AS%5FSECRET_A?x=1"] {
            assert_eq!(references(uri, &[]), one("A", LocationKind::Path), "{uri}");
        }
        assert!(references("/AS_/SECRET_A", &[]).is_empty());
    }

    #[test]
    fn internal_headers_are_skipped_and_duplicates_merged() {
        assert!(references("/", &[("x-as-agent-token", "AS_SECRET_A")]).is_empty());
        assert_eq!(references("/?a={{A}}+{{A}}".replace('{', "%7b").as_str(), &[]).len(), 1);
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let placeholders = Placeholders::new([("A".parse().unwrap(), Some("custom".to_owned()))]);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let request = Request::builder().header("authorization", value).body(()).unwrap();
                let _ = References::from_head(&request.into_parts().0, &placeholders);
            }
        }
    }
}
