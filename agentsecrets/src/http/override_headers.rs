//! Headers and parameters by which a server may be told to act on another request than the one on the
//! request line: another method, another path, another host. Policy judges the request line, so what
//! contradicts it is refused, and what an intermediary would have added on the way is taken off: the
//! agent's word for it is worth nothing. What a body says is not looked at.

use http::HeaderMap;
use http::request::Parts;

use crate::types::rejection::{ErrorCode, Rejection};

use crate::types::target::Target;

/// Headers that replace the method, in the spelling of [`canonical`].
const METHODS: &[&str] = &["x-http-method", "x-http-method-override", "x-method", "x-method-override"];

/// Headers that replace the path.
const PATHS: &[&str] = &[
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-request-uri",
    "x-rewrite-uri",
    "x-rewrite-url",
];

/// Headers that speak for an intermediary: who was asked for what, by whom, under which prefix.
const FORWARDING: &[&str] = &[
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

/// The parameter that replaces the method of a form.
const METHOD_PARAMETER: &str = "_method";

/// Takes off what speaks for an intermediary. Refused is what names another method or path than the
/// request line; what repeats it is taken off too.
pub fn unmask(parts: &mut Parts, target: &Target) -> Result<(), Rejection> {
    let refuse = |what: &str| {
        let message = format!("{what}; send the request that is meant");
        Rejection::new(ErrorCode::PolicyDenied, &target.host, message)
    };
    let method = parts.method.as_str();
    if values(&parts.headers, METHODS).any(|value| !value.eq_ignore_ascii_case(method.as_bytes())) {
        return Err(refuse("a header asks the server for another method than the request line"));
    }
    let whole = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if values(&parts.headers, PATHS).any(|value| value != whole.as_bytes()) {
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
    let masks: Vec<_> = parts.headers.keys().filter(|name| is_mask(name.as_str())).cloned().collect();
    for name in masks {
        parts.headers.remove(name);
    }
    Ok(())
}

/// A header's name as a server behind CGI or WSGI sees it, to which `_` and `-` are one.
fn canonical(name: &str) -> String {
    name.replace('_', "-")
}

fn is_mask(name: &str) -> bool {
    let name = canonical(name);
    let listed = |list: &[&str]| list.contains(&name.as_str());
    name.starts_with("x-forwarded") || listed(METHODS) || listed(PATHS) || listed(FORWARDING)
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
    use crate::types::target::Scheme;

    fn unmasked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Vec<String>, ErrorCode> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(HeaderName::from_bytes(name.as_bytes()).unwrap(), *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let target = Target { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: 443 };
        unmask(&mut parts, &target).map_err(|refusal| refusal.code)?;
        Ok(parts.headers.keys().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn what_names_another_method_or_path_is_refused() {
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
    fn the_second_of_two_headers_counts_too() {
        let headers = [("x-http-method-override", "GET"), ("x-http-method-override", "PUT")];
        assert_eq!(unmasked("GET", "/", &headers), Err(ErrorCode::PolicyDenied));
    }

    #[test]
    fn what_an_intermediary_would_say_is_taken_off() {
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
