//! Which secrets a request names, and where: what the policy is asked about. It reads headers and the
//! query, never the body, and changes nothing.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use http::request::Parts;
use zeroize::Zeroizing;

use super::placeholder::Vocabulary;
use crate::policy::ask::{Place, Reference};

/// The secrets that the request's headers and query name, each place once.
pub fn references(parts: &Parts, vocabulary: &Vocabulary) -> Vec<Reference> {
    let mut references = Vec::new();
    let mut note = |bytes: &[u8], place| {
        for mention in vocabulary.mentions(bytes) {
            let reference = Reference { name: mention.name, place };
            if !references.contains(&reference) {
                references.push(reference);
            }
        }
    };
    for (name, value) in &parts.headers {
        if is_ours(name) {
            continue;
        }
        let place = place(name);
        note(value.as_bytes(), place);
        if let Some(pair) = basic(name, value.as_bytes()) {
            note(&pair, place);
        }
    }
    for pair in parts.uri.query().unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        note(&decoded(name), Place::Query);
        note(&decoded(value), Place::Query);
    }
    references
}

/// The kind of place that a header is.
pub(super) fn place(name: &HeaderName) -> Place {
    if name == COOKIE {
        Place::Cookie
    } else if authenticates(name) {
        Place::Auth
    } else {
        Place::Header
    }
}

/// Whether a header is for us alone and never leaves.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-as-")
}

/// Whether a header's name says that it authenticates: one of its words is a credential's, and none says that
/// the key or token is of another kind, which servers store or show.
fn authenticates(name: &HeaderName) -> bool {
    let credential = |word: &str| {
        matches!(
            word,
            "auth" | "authorization" | "authentication" | "apikey" | "key" | "token" | "secret" | "password"
        )
    };
    let other = |word: &str| {
        matches!(
            word,
            "idempotency"
                | "idempotent"
                | "websocket"
                | "surrogate"
                | "cache"
                | "partition"
                | "routing"
                | "continuation"
                | "page"
                | "csrf"
                | "xsrf"
                | "object"
                | "sort"
        )
    };
    let words = || name.as_str().split(['-', '_']);
    name == AUTHORIZATION || name == PROXY_AUTHORIZATION || (words().any(credential) && !words().any(other))
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

/// A name or value of the query as the server reads it.
pub(super) fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_encoding::percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
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
        references(&parts, &vocabulary).into_iter().map(|r| (r.name.to_string(), r.place)).collect()
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
        // Encoded twice, it is not what the server reads. The path is no place.
        assert!(found("/AS_SECRET_A?k=AS%255FSECRET_A", &[]).is_empty());
    }

    #[test]
    fn our_own_headers_are_no_place_and_each_place_counts_once() {
        assert!(found("/", &[("x-as-agent-token", "AS_SECRET_A")]).is_empty());
        assert_eq!(found("/?a={{A}}&b={{A}}".replace('{', "%7b").as_str(), &[]).len(), 1);
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let vocabulary = Vocabulary::new([("A".parse().unwrap(), Some("custom".to_owned()))]);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let request = Request::builder().header("authorization", value).body(()).unwrap();
                references(&request.into_parts().0, &vocabulary);
            }
        }
    }
}
