//! Which secrets a request names, and where: what the policy is asked about. It changes nothing.

use std::collections::HashSet;

use http::header::COOKIE;
use http::request::Parts;

use super::body::Payload;
use super::headers::{basic, cookies, is_ours};
use super::pairs::{self, at, pairs};
use super::placeholder::Vocabulary;
use super::url::segment;
use crate::http::header_case::Spelling;
use crate::inject::proxy_headers::{Asked, asked};
use crate::policy::access_request::{Place, Reference, Spot};
use crate::types::rejection::{ErrorCode, Rejection};

/// How many spots of one request may name secrets.
const MOST: usize = 1000;

/// The secrets that a request names, each spot once.
#[derive(Default)]
pub struct References {
    found: Vec<Reference>,
    known: HashSet<Reference>,
}

impl References {
    /// Those of the head: in headers, cookies, path and query, and in the headers that are ours.
    pub fn of_head(parts: &Parts, vocabulary: &Vocabulary) -> Result<Self, Rejection> {
        let mut references = Self::default();
        for (name, value) in &parts.headers {
            if is_ours(name) {
                continue;
            }
            if name == COOKIE {
                for (cookie, pair) in cookies(value.as_bytes()) {
                    references.note(vocabulary, pair, || Spot::new(Place::Cookie, cookie))?;
                }
                continue;
            }
            references.note(vocabulary, value.as_bytes(), || Spot::header(name))?;
            if let Some(pair) = basic(name, value.as_bytes()) {
                references.note(vocabulary, &pair, || Spot::header(name))?;
            }
        }
        for text in parts.uri.path().split('/') {
            references.note(vocabulary, &segment(text), || Spot::new(Place::Path, ""))?;
        }
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        for pair in pairs(query) {
            let name = at(query, &pair.name);
            references.note(vocabulary, &name, || Spot::new(Place::Query, ""))?;
            if let Some(value) = pair.value {
                references.note(vocabulary, &at(query, &value), || pairs::spot(Place::Query, &name))?;
            }
        }
        for reference in asked(&parts.headers, parts.extensions.get::<Spelling>())? {
            references.add(reference)?;
        }
        for reference in parts.extensions.get::<Asked>().iter().flat_map(|asked| asked.references()) {
            references.add(reference.clone())?;
        }
        Ok(references)
    }

    /// Adds those of the body.
    pub fn and_of_body(&mut self, body: &Payload, vocabulary: &Vocabulary) -> Result<(), Rejection> {
        body.references(vocabulary, self)
    }

    /// All that were found.
    pub fn all(&self) -> &[Reference] {
        &self.found
    }

    /// Adds the placeholders in `bytes`, which stand at `spot`.
    pub(super) fn note(
        &mut self,
        vocabulary: &Vocabulary,
        bytes: &[u8],
        spot: impl FnOnce() -> Spot,
    ) -> Result<(), Rejection> {
        let mut mentions = vocabulary.mentions(bytes).peekable();
        if mentions.peek().is_none() {
            return Ok(());
        }
        let spot = spot();
        mentions.try_for_each(|mention| self.add(Reference::placeholder(mention.name, spot.clone())))
    }

    fn add(&mut self, reference: Reference) -> Result<(), Rejection> {
        if self.known.contains(&reference) {
            return Ok(());
        }
        if self.found.len() == MOST {
            let message = "the request names secrets in more than 1000 places";
            return Err(Rejection::new(ErrorCode::BadRequest, "", message));
        }
        self.known.insert(reference.clone());
        self.found.push(reference);
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

    fn found(uri: &str, headers: &[(&str, &str)]) -> Vec<(String, Place)> {
        let vocabulary = Vocabulary::new([("A".parse().unwrap(), None), ("B".parse().unwrap(), None)]);
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let references = References::of_head(&parts, &vocabulary).unwrap();
        let place = |reference: &Reference| reference.style.spot().unwrap().place;
        references.all().iter().map(|r| (r.name.to_string(), place(r))).collect()
    }

    fn one(name: &str, place: Place) -> Vec<(String, Place)> {
        vec![(name.to_owned(), place)]
    }

    #[test]
    fn each_place_is_told_apart() {
        for (header, place) in [
            ("authorization", Place::Auth),
            ("proxy-authorization", Place::Auth),
            ("x-api-key", Place::Auth),
            ("apikey", Place::Auth),
            ("private-token", Place::Auth),
            ("x-goog-api-key", Place::Auth),
            ("x-amz-security-token", Place::Auth),
            ("x-auth", Place::Auth),
            ("idempotency-key", Place::Header),
            ("sec-websocket-key", Place::Header),
            ("x-csrf-token", Place::Header),
            ("x-comment", Place::Header),
            ("x-monkey", Place::Header),
            ("cookie", Place::Cookie),
        ] {
            assert_eq!(found("/", &[(header, "x AS_SECRET_A")]), one("A", place), "{header}");
        }
    }

    #[test]
    fn basic_is_looked_into() {
        for pair in ["AS_SECRET_A:", "user:AS_SECRET_A", "{{A}}:x"] {
            let value = format!("bAsIc {}", STANDARD.encode(pair));
            assert_eq!(found("/", &[("authorization", &value)]), one("A", Place::Auth), "{pair}");
        }
        assert!(found("/", &[("authorization", "Basic !!!")]).is_empty());
    }

    #[test]
    fn the_query_is_read_as_the_server_reads_it() {
        for uri in
            ["/?k=AS_SECRET_A", "/?k=%7B%7BA%7D%7D&x=y", "/?AS%5fSECRET_A", "/?a=1&k=b+AS_SECRET_A%20c"]
        {
            assert_eq!(found(uri, &[]), one("A", Place::Query), "{uri}");
        }
        // Encoded twice, it is not what the server reads.
        assert!(found("/?k=AS%255FSECRET_A", &[]).is_empty());
    }

    #[test]
    fn the_path_is_read_segment_by_segment() {
        for uri in ["/botAS_SECRET_A/send", "/a/%7B%7BA%7D%7D", "/AS%5FSECRET_A?x=1"] {
            assert_eq!(found(uri, &[]), one("A", Place::Path), "{uri}");
        }
        assert!(found("/AS_/SECRET_A", &[]).is_empty());
    }

    #[test]
    fn our_own_headers_are_no_place_and_each_place_counts_once() {
        assert!(found("/", &[("x-as-agent-token", "AS_SECRET_A")]).is_empty());
        assert_eq!(found("/?a={{A}}+{{A}}".replace('{', "%7b").as_str(), &[]).len(), 1);
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let vocabulary = Vocabulary::new([("A".parse().unwrap(), Some("custom".to_owned()))]);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let request = Request::builder().header("authorization", value).body(()).unwrap();
                let _ = References::of_head(&request.into_parts().0, &vocabulary);
            }
        }
    }
}
