//! The form of a request on the wire of either protocol: one authority, which is the target's, and no
//! header that speaks of the connection it came by.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};
use http_body::Body as _;

use crate::types::body::Body;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Target;

/// Removes what concerns one connection only. Gives the protocol to upgrade to, if one was asked for.
pub(super) fn take_hop_headers(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let names = value.to_str().unwrap_or_default().split(',');
        named.extend(names.filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    let upgrade = headers.remove(UPGRADE).filter(|_| named.contains(&UPGRADE));
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"] {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    for name in named {
        headers.remove(name);
    }
    upgrade
}

/// Asks for `upgrade`.
pub(super) fn ask_upgrade(request: &mut Request<Body>, upgrade: HeaderValue) {
    request.headers_mut().insert(UPGRADE, upgrade);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

/// For HTTP/1.1: a path, and the target in `Host`.
pub(super) fn for_http1(request: &mut Request<Body>, target: &Target) -> Result<(), Rejection> {
    let host = HeaderValue::try_from(authority(target)).map_err(|_| malformed(target))?;
    *request.uri_mut() = Uri::from(path(request));
    *request.version_mut() = Version::HTTP_11;
    let length = request.body().size_hint().exact();
    let has_body_as_a_rule = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.remove(TE);
    match length {
        // Servers ask where the length is of a request that has a body as a rule.
        Some(0) if !headers.contains_key(CONTENT_LENGTH) && !has_body_as_a_rule => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        // Said outright, as a body of unknown length would be left out with some methods.
        None if !headers.contains_key(CONTENT_LENGTH) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        None => {}
    }
    Ok(())
}

/// For HTTP/2: the target in the URI, and no `Host`.
pub(super) fn for_http2(request: &mut Request<Body>, target: &Target) -> Result<(), Rejection> {
    let uri = Uri::builder()
        .scheme(target.scheme.as_str())
        .authority(authority(target))
        .path_and_query(path(request))
        .build();
    *request.uri_mut() = uri.map_err(|_| malformed(target))?;
    *request.version_mut() = Version::HTTP_2;
    let length = request.body().size_hint().exact();
    let headers = request.headers_mut();
    headers.remove(HOST);
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.remove(TRANSFER_ENCODING);
    // The only value that HTTP/2 knows.
    if headers.remove(TE).is_some_and(|te| te == "trailers") {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(length) = length
        && headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(())
}

/// `host`, or `host:port` where the port is not the scheme's.
fn authority(target: &Target) -> String {
    if target.port == target.scheme.default_port() {
        return target.host.to_string();
    }
    format!("{}:{}", target.host, target.port)
}

fn path(request: &Request<Body>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

fn malformed(target: &Target) -> Rejection {
    let message = format!("the request to '{}' has no valid form", target.host);
    Rejection::new(ErrorCode::BadRequest, &target.host, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::body::{empty, full};
    use crate::types::target::Scheme;

    fn target(host: &str, port: u16) -> Target {
        Target { scheme: Scheme::Https, host: host.parse().unwrap(), port }
    }

    fn request(uri: &str) -> Request<Body> {
        Request::builder()
            .uri(uri)
            .header("host", "other.example")
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "5")
            .header("te", "trailers")
            .header("content-length", "99")
            .body(full("abc"))
            .unwrap()
    }

    #[test]
    fn http1_names_the_target_in_host() {
        let mut request = request("https://other.example/a?b=c");
        assert_eq!(take_hop_headers(request.headers_mut()), None);
        for_http1(&mut request, &target("api.test", 443)).unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        let mut headers: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(headers, ["content-length: 3", "host: api.test"]);
    }

    #[test]
    fn the_length_of_a_body_is_always_said_in_http1() {
        let framing = |method: &str, body: Body| {
            let mut request = Request::builder().method(method).uri("/").body(body).unwrap();
            for_http1(&mut request, &target("api.test", 443)).unwrap();
            let header = |name| request.headers().get(name).cloned();
            let chunked = header(TRANSFER_ENCODING).is_some();
            (header(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned()), chunked)
        };
        assert_eq!(framing("GET", empty()), (None, false));
        assert_eq!(framing("POST", empty()), (Some("0".to_owned()), false));
        assert_eq!(framing("GET", full("abc")), (Some("3".to_owned()), false));
        let unknown = http_body_util::StreamBody::new(futures_util::stream::pending());
        assert_eq!(framing("GET", http_body_util::BodyExt::boxed_unsync(unknown)), (None, true));
    }

    #[test]
    fn http2_names_the_target_in_the_uri() {
        let mut request = request("/a?b=c");
        take_hop_headers(request.headers_mut());
        for_http1(&mut request, &target("::1", 8443)).unwrap();
        for_http2(&mut request, &target("::1", 8443)).unwrap();
        assert_eq!(request.uri(), "https://[::1]:8443/a?b=c");
        assert!(!request.headers().contains_key("host"));
        assert!(!request.headers().contains_key("x-hop"));
    }

    #[test]
    fn an_upgrade_is_one_only_if_the_connection_header_says_so() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(take_hop_headers(&mut headers.clone()), None);
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(take_hop_headers(&mut headers).unwrap(), "websocket");
        assert!(headers.is_empty());
    }
}
