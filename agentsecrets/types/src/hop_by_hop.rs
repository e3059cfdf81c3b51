//! Hop-by-hop and framing headers (RFC 9110, 7.6.1; RFC 9112, 6): the only place that lists, removes and sets
//! them. A header that concerns one connection never passes from one side to the other, and neither do the
//! internal `X-AS-…` headers.

use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that frame or route a message.
const FRAMING: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Hop-by-hop headers besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, TRANSFER_ENCODING, HTTP2_SETTINGS];

/// Whether a header, in any case, frames or routes a message. Such a header cannot carry a secret, cannot be a
/// trailer, and cannot be set by a caller.
pub fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing.as_str()))
}

/// Whether a header is one of our own (`X-AS-…`), which ends at this proxy.
pub fn is_internal(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-as-")
}

/// Removes the internal headers, or internal trailers.
pub fn remove_internal(headers: &mut HeaderMap) {
    remove_where(headers, is_internal);
}

/// The comma-separated tokens in all values of `name`.
pub fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether `Connection` names `header`.
pub fn is_named_by_connection(headers: &HeaderMap, header: &HeaderName) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(header.as_str()))
}

/// Removes the hop-by-hop headers of a message. Returns the protocol of a requested upgrade.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
    let upgrade = headers.remove(UPGRADE).filter(|_| named.contains(&UPGRADE));
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    upgrade
}

/// Removes everything from a client's request that is not for the server: hop-by-hop, proxy and internal
/// headers. Of `TE` only `trailers` stays.
pub fn sanitize_request(headers: &mut HeaderMap) {
    let accepts_trailers = tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    remove_where(headers, |name| {
        is_internal(name) || name.as_str().starts_with("proxy-") || [TE, EXPECT].contains(name)
    });
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Requests an upgrade of the connection to `protocol`.
pub fn request_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

/// Announces that the connection closes after this message.
pub fn announce_close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Frames an HTTP/1.1 request whose body has `length` bytes, if that is known.
pub fn frame_http1_request(headers: &mut HeaderMap, method: &Method, length: Option<u64>) {
    let usually_has_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    headers.remove(TE);
    match length {
        // Servers demand a length where the method usually has a body.
        Some(0) if !headers.contains_key(CONTENT_LENGTH) && !usually_has_body => {}
        Some(length) => set_length(headers, length),
        // Set explicitly, because hyper would drop a body of unknown length with some methods.
        None if !headers.contains_key(CONTENT_LENGTH) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        None => {}
    }
}

/// Frames an HTTP/2 request whose body has `length` bytes, if that is known. HTTP/2 has no connection headers.
pub fn frame_http2_request(headers: &mut HeaderMap, length: Option<u64>) {
    for name in [HOST, CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    // HTTP/2 allows no other value.
    if headers.remove(TE).is_some_and(|te| te == "trailers") {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(length) = length
        && headers.contains_key(CONTENT_LENGTH)
    {
        set_length(headers, length);
    }
}

/// Announces a body of exactly `length` bytes.
pub fn set_length(headers: &mut HeaderMap, length: u64) {
    headers.insert(CONTENT_LENGTH, length.into());
}

/// Removes the framing of a body that changes its length: the HTTP library frames it again.
pub fn clear_framing(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
}

/// Announces a trailer. HTTP/1.1 delivers announced trailers only.
pub fn announce_trailer(headers: &mut HeaderMap, name: &HeaderName) {
    headers.append(TRAILER, HeaderValue::from(name.clone()));
}

fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name)).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrade_counts_only_if_connection_names_it() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(remove_hop_by_hop(&mut headers.clone()), None);
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(remove_hop_by_hop(&mut headers).unwrap(), "websocket");
        assert!(headers.is_empty());
    }

    #[test]
    fn request_keeps_end_to_end_headers_only() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip, trailers"),
            ("expect", "100-continue"),
            ("x-as-agent-token", "t"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        sanitize_request(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["accept"], "*/*");
    }

    #[test]
    fn http1_request_always_announces_its_body() {
        let framing = |method: Method, length| {
            let mut headers = HeaderMap::new();
            frame_http1_request(&mut headers, &method, length);
            let length = headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
            (length, headers.contains_key(TRANSFER_ENCODING))
        };
        assert_eq!(framing(Method::GET, Some(0)), (None, false));
        assert_eq!(framing(Method::POST, Some(0)), (Some("0".to_owned()), false));
        assert_eq!(framing(Method::GET, Some(3)), (Some("3".to_owned()), false));
        assert_eq!(framing(Method::GET, None), (None, true));
    }
}
