//! Normalizes a request for HTTP/1.1 or HTTP/2: the target is its only authority, and no hop-by-hop header
//! remains.

use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Uri, Version};
use http_body::Body as _;

use crate::types::body::Body;
use crate::types::hop_by_hop;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Target;

/// HTTP/1.1: origin-form, with the target in `Host`.
pub(super) fn for_http1(request: &mut Request<Body>, target: &Target) -> Result<(), Rejection> {
    let host = HeaderValue::try_from(target.authority()).map_err(|_| malformed(target))?;
    *request.uri_mut() = Uri::from(path(request));
    *request.version_mut() = Version::HTTP_11;
    let length = request.body().size_hint().exact();
    let method = request.method().clone();
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    hop_by_hop::frame_http1_request(headers, &method, length);
    Ok(())
}

/// HTTP/2: the target in `:authority`, and no `Host`.
pub(super) fn for_http2(request: &mut Request<Body>, target: &Target) -> Result<(), Rejection> {
    let uri = Uri::builder()
        .scheme(target.scheme.as_str())
        .authority(target.authority())
        .path_and_query(path(request))
        .build();
    *request.uri_mut() = uri.map_err(|_| malformed(target))?;
    *request.version_mut() = Version::HTTP_2;
    let length = request.body().size_hint().exact();
    hop_by_hop::frame_http2_request(request.headers_mut(), length);
    Ok(())
}

fn path(request: &Request<Body>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

fn malformed(target: &Target) -> Rejection {
    let message = format!("the request to '{}' has no valid form", target.host);
    Rejection::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::body::full;
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
    fn http1_target_is_in_host() {
        let mut request = request("https://other.example/a?b=c");
        assert_eq!(hop_by_hop::remove_hop_by_hop(request.headers_mut()), None);
        for_http1(&mut request, &target("api.test", 443)).unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        let mut headers: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(headers, ["content-length: 3", "host: api.test"]);
    }

    #[test]
    fn http2_target_is_in_uri() {
        let mut request = request("/a?b=c");
        hop_by_hop::remove_hop_by_hop(request.headers_mut());
        for_http1(&mut request, &target("::1", 8443)).unwrap();
        for_http2(&mut request, &target("::1", 8443)).unwrap();
        assert_eq!(request.uri(), "https://[::1]:8443/a?b=c");
        assert!(!request.headers().contains_key("host"));
        assert!(!request.headers().contains_key("x-hop"));
    }
}
