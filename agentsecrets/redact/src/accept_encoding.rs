//! The request's share in redaction: it must not ask for an answer that we could not search.

use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use http::request::Parts;

use super::content_coding::Coding;

/// Asks for codings that we read, and for whole answers: a part of one could cut a secret in two, and
/// messages that are compressed one by one (gRPC) or sent as differences (`A-IM`) hide it.
pub fn limit_codings(parts: &mut Parts) {
    for name in [RANGE, IF_RANGE] {
        parts.headers.remove(name);
    }
    for name in PARTIAL_HEADERS {
        parts.headers.remove(name);
    }
    if parts.headers.contains_key(ACCEPT_ENCODING) {
        let readable = readable(parts.headers.get_all(ACCEPT_ENCODING).iter());
        parts.headers.insert(ACCEPT_ENCODING, readable);
    }
}

/// Other ways to ask for less than the whole: what Apache still reads as `Range`, Azure's own, differences,
/// and messages that are compressed by themselves.
const PARTIAL_HEADERS: [&str; 5] =
    ["request-range", "x-ms-range", "x-ms-range-get-content-md5", "a-im", "grpc-accept-encoding"];

/// The codings of `accepted` that we read, as they stand there; `identity` if there is none.
fn readable<'a>(accepted: impl Iterator<Item = &'a HeaderValue>) -> HeaderValue {
    let kept: Vec<&str> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|item| {
            let coding = item.split(';').next().unwrap_or_default().trim();
            coding.eq_ignore_ascii_case("identity") || Coding::named(coding).is_some()
        })
        .collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(value) if !kept.is_empty() => value,
        _ => HeaderValue::from_static("identity"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(headers: &[(&str, &str)]) -> http::HeaderMap {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        limit_codings(&mut parts);
        parts.headers
    }

    #[test]
    fn supported_codings_are_kept() {
        for (asked, sent) in [
            ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
            ("gzip;q=0.5, compress, dcb, *;q=0", "gzip;q=0.5"),
            ("compress", "identity"),
            ("", "identity"),
            ("*", "identity"),
        ] {
            assert_eq!(prepared(&[("accept-encoding", asked)])["accept-encoding"], sent);
        }
        assert!(prepared(&[]).is_empty());
    }

    #[test]
    fn range_headers_are_removed() {
        assert!(
            prepared(&[
                ("range", "bytes=0-9"),
                ("if-range", "\"x\""),
                ("request-range", "bytes=0-9"),
                ("x-ms-range", "bytes=0-9"),
            ])
            .is_empty()
        );
    }
}
