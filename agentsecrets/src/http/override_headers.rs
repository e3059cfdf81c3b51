//! Headers and parameters that make a server act on another method, path or host than the request line
//! names. Policy judges the request line, so a contradiction is rejected, and headers that belong to an
//! intermediary are removed because the agent could forge them. Bodies are not inspected.

use http::HeaderMap;
use http::request::Parts;

use crate::types::rejection::{ErrorCode, Rejection};

/// Headers that override the method, in [`canonical`] form.
const METHOD_OVERRIDES: &[&str] =
    &["x-http-method", "x-http-method-override", "x-method", "x-method-override"];

/// Headers that override the path.
const PATH_OVERRIDES: &[&str] = &[
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-request-uri",
    "x-rewrite-uri",
    "x-rewrite-url",
];

/// Headers that an intermediary sets: original client, host or path prefix.
const FORWARDING_HEADERS: &[&str] = &[
    "base-url",
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-host",
    "x-http-host-override",
    "x-original-forwarded-for",
    "x-original-host",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-script-name",
    "x-url-scheme",
];

/// Parameter that overrides the method of a form.
const METHOD_PARAMETER: &str = "_method";

/// Removes intermediary and override headers. Fails if one names another method or path than the request
/// line.
pub(crate) fn strip_overrides(parts: &mut Parts) -> Result<(), Rejection> {
    let refuse = |what: &str| {
        let message = format!("{what}; send the request that is meant");
        Rejection::new(ErrorCode::PolicyDenied, message)
    };
    let method = parts.method.as_str();
    if values(&parts.headers, METHOD_OVERRIDES).any(|value| !value.eq_ignore_ascii_case(method.as_bytes())) {
        return Err(refuse("a header asks the server for another method than the request line"));
    }
    let whole = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if values(&parts.headers, PATH_OVERRIDES).any(|value| value != whole.as_bytes()) {
        return Err(refuse("a header asks the server for another path than the request line"));
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let overrides = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        name == METHOD_PARAMETER && !value.eq_ignore_ascii_case(method)
    };
    if parameters.any(overrides) {
        return Err(refuse("the parameter '_method' asks the server for another method"));
    }
    let removed: Vec<_> = parts.headers.keys().filter(|name| is_override(name.as_str())).cloned().collect();
    for name in removed {
        parts.headers.remove(name);
    }
    Ok(())
}

/// Header name as CGI and WSGI servers see it, which treat `_` and `-` alike.
fn canonical(name: &str) -> String {
    name.replace('_', "-")
}

fn is_override(name: &str) -> bool {
    let name = canonical(name);
    let listed = |list: &[&str]| list.contains(&name.as_str());
    name.starts_with("x-forwarded")
        || listed(METHOD_OVERRIDES)
        || listed(PATH_OVERRIDES)
        || listed(FORWARDING_HEADERS)
}

fn values<'h>(headers: &'h HeaderMap, names: &'h [&str]) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(|(name, _)| names.contains(&canonical(name.as_str()).as_str()))
        .map(|(_, value)| value.as_bytes().trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request};

    use super::*;

    fn unmasked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Vec<String>, ErrorCode> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(HeaderName::from_bytes(name.as_bytes()).unwrap(), *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        strip_overrides(&mut parts).map_err(|rejection| rejection.code)?;
        Ok(parts.headers.keys().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn override_of_method_or_path_is_rejected() {
        for header in
            ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override"]
        {
            assert_eq!(unmasked("GET", "/", &[(header, "DELETE")]), Err(ErrorCode::PolicyDenied), "{header}");
            assert_eq!(unmasked("GET", "/", &[(header, "get")]), Ok(vec![]), "{header}");
        }
        for header in ["X-Original-URL", "X-Rewrite-URL", "x_original_url", "X-Original-URI"] {
            assert_eq!(
                unmasked("GET", "/a", &[(header, "/admin")]),
                Err(ErrorCode::PolicyDenied),
                "{header}"
            );
            assert_eq!(unmasked("GET", "/a?b", &[(header, "/a?b")]), Ok(vec![]), "{header}");
        }
        for query in ["_method=DELETE", "a=b&_method=put", "%5fmethod=PUT", "_method=GET&_method=PUT"] {
            assert_eq!(unmasked("POST", &format!("/?{query}"), &[]), Err(ErrorCode::PolicyDenied), "{query}");
        }
        assert_eq!(unmasked("POST", "/?_method=post", &[]), Ok(vec![]));
    }

    #[test]
    fn second_override_header_is_checked() {
        let headers = [("x-http-method-override", "GET"), ("x-http-method-override", "PUT")];
        assert_eq!(unmasked("GET", "/", &headers), Err(ErrorCode::PolicyDenied));
    }

    #[test]
    fn forwarding_headers_are_removed() {
        let headers = [
            ("x-forwarded-host", "evil.test"),
            ("X-Forwarded-Uri", "/admin"),
            ("x-forwarded-prefix", "/x"),
            ("X_Forwarded_Host", "evil.test"),
            ("forwarded", "host=evil.test"),
            ("x-host", "evil.test"),
            ("x-real-ip", "127.0.0.1"),
            ("x-trace", "kept"),
        ];
        assert_eq!(unmasked("GET", "/", &headers), Ok(vec!["x-trace".to_owned()]));
    }
}
