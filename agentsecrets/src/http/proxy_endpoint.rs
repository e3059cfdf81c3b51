//! The `/proxy` endpoint: a request whose headers describe another one. It is rewritten to the described
//! request here; policy decides about that one as about any other.

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};

use crate::http::header_case::INJECT_PREFIX;
use crate::types::host::Host;
use crate::types::presented::PresentedCredentials;
use crate::types::rejection::{ErrorCode, Rejection};

const TARGET_URL: HeaderName = HeaderName::from_static("x-as-target-url");
const TARGET_METHOD: HeaderName = HeaderName::from_static("x-as-method");
const AGENT_ID: HeaderName = HeaderName::from_static("x-as-agent-id");
const TOKENS: [HeaderName; 2] =
    [HeaderName::from_static("x-as-agent-token"), HeaderName::from_static("x-as-session-token")];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Collects the tokens that a request presents. For a proxy request this includes `Proxy-Authorization`,
/// which is removed.
pub(crate) fn presented_credentials(headers: &mut HeaderMap, is_proxy_request: bool) -> PresentedCredentials {
    let mut presented = PresentedCredentials::default();
    for value in TOKENS.iter().flat_map(|name| headers.get_all(name)) {
        presented = presented.with_token(value.to_str().unwrap_or_default().trim());
    }
    if is_proxy_request {
        for value in headers.get_all(PROXY_AUTHORIZATION) {
            presented = presented.with_authorization(value.as_bytes());
        }
        headers.remove(PROXY_AUTHORIZATION);
    }
    for value in headers.get_all(AGENT_ID).iter().filter(|value| !value.is_empty()) {
        presented = presented.with_name(value.to_str().unwrap_or_default().trim());
    }
    presented
}

/// Rejects requests that a web page could send to our port: a `Host` that is not loopback (DNS
/// rebinding), and requests that the browser marks as cross-site. A `Host` equal to the target's passes,
/// because the original's Python library leaves it there; a page of that server could only reach its own
/// server.
pub(crate) fn reject_web_pages(parts: &Parts) -> Result<(), Rejection> {
    let host = single_value(&parts.headers, &HOST)?.unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_loopback = match name.parse::<Host>() {
        Ok(Host::Ip(ip)) => ip.is_loopback(),
        Ok(Host::Name(name)) => &*name == "localhost",
        Err(_) => false,
    };
    let target = single_value(&parts.headers, &TARGET_URL)?.filter(|_| parts.uri.path() == "/proxy");
    let target = target.and_then(|url| url.parse::<Uri>().ok());
    let is_target = target.and_then(|uri| Some(uri.authority()?.as_str().eq_ignore_ascii_case(host)));
    if !is_loopback && is_target != Some(true) {
        let message = "this is a proxy: ask it at its loopback address, such as http://localhost:8765";
        return Err(Rejection::new(ErrorCode::TargetMismatch, message));
    }
    let is_cross_site = parts.headers.get_all(&SEC_FETCH_SITE).iter().any(|site| site != "none");
    if is_cross_site || parts.headers.contains_key(ORIGIN) {
        return Err(Rejection::new(ErrorCode::CapabilityDenied, "web pages may not use this proxy"));
    }
    Ok(())
}

/// Rewrites a request to the endpoint into the request that it describes; its `X-AS-Inject-…` headers
/// stay. Returns the agent name that it declares, which proves nothing.
pub(crate) fn rewrite_to_target(parts: &mut Parts) -> Result<Option<String>, Rejection> {
    let bad = |message: &str| Rejection::new(ErrorCode::BadRequest, message);
    let url = single_value(&parts.headers, &TARGET_URL)?
        .ok_or_else(|| bad("the header X-AS-Target-URL is missing"))?;
    let no_url = || bad("X-AS-Target-URL must begin with https:// or http:// and name a host");
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let authority = match (uri.scheme_str(), uri.authority()) {
        (Some("https" | "http"), Some(authority)) => HeaderValue::try_from(authority.as_str()),
        _ => return Err(no_url()),
    };
    let authority = authority.map_err(|_| no_url())?;
    let method = match single_value(&parts.headers, &TARGET_METHOD)? {
        Some(method) => Some(
            method.to_ascii_uppercase().parse::<Method>().map_err(|_| bad("X-AS-Method is not a method"))?,
        ),
        None => None,
    };
    if !parts.headers.keys().any(|name| name.as_str().starts_with(INJECT_PREFIX)) {
        return Err(bad(
            "no secret is asked for: give one of X-AS-Inject-Bearer, -Basic, -Header-<Name>, -Query-<p>, \
             -Body-<path>, -Form-<f>",
        ));
    }
    let agent = single_value(&parts.headers, &AGENT_ID)?.filter(|agent| !agent.is_empty()).map(str::to_owned);
    parts.method = method.unwrap_or_else(|| parts.method.clone());
    parts.uri = uri;
    parts.headers.insert(HOST, authority);
    Ok(agent)
}

/// Returns the value of a header that may occur once.
fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Rejection> {
    let bad = |what: &str| Rejection::new(ErrorCode::BadRequest, format!("the header {name} {what}"));
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(bad("occurs twice")),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| bad("is not text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/proxy");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn described_request_is_rebuilt() {
        let mut parts = parts(&[
            ("host", "localhost:8765"),
            ("x-as-target-url", "https://api.test:8443/v1/me?a=b"),
            ("x-as-method", "delete"),
            ("x-as-agent-id", "coder"),
            ("x-as-inject-bearer", "KEY"),
            ("x-note", "kept"),
        ]);
        let said = rewrite_to_target(&mut parts).unwrap();
        assert_eq!(said.as_deref(), Some("coder"));
        assert_eq!(
            (parts.method.as_str(), parts.uri.to_string().as_str()),
            ("DELETE", "https://api.test:8443/v1/me?a=b")
        );
        assert_eq!(
            (&parts.headers["host"], &parts.headers["x-note"]),
            (&"api.test:8443".parse().unwrap(), &"kept".parse().unwrap())
        );
        assert!(parts.headers.contains_key("x-as-inject-bearer"));
    }

    #[test]
    fn invalid_description_is_rejected() {
        let inject = ("x-as-inject-bearer", "K");
        for headers in [
            &[inject][..],
            &[("x-as-target-url", "https://api.test/")],
            &[("x-as-target-url", "https://api.test/"), ("x-as-target-url", "https://b.test/"), inject],
            &[("x-as-target-url", "/relative"), inject],
            &[("x-as-target-url", "ftp://api.test/"), inject],
            &[("x-as-target-url", "https://"), inject],
            &[("x-as-target-url", "https://api.test/"), ("x-as-method", "GE T"), inject],
        ] {
            assert_eq!(
                rewrite_to_target(&mut parts(headers)).unwrap_err().code,
                ErrorCode::BadRequest,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn web_page_requests_are_rejected() {
        for host in ["localhost", "localhost:8765", "127.0.0.1:8765", "[::1]:8765", "127.9.9.9"] {
            assert!(reject_web_pages(&parts(&[("host", host)])).is_ok(), "{host}");
        }
        for host in ["evil.test:8765", "localhost.evil.test", "10.0.0.1", "", "localhost@evil.test"] {
            assert!(reject_web_pages(&parts(&[("host", host)])).is_err(), "{host}");
        }
        let to_itself = [("host", "api.test"), ("x-as-target-url", "https://api.test/v1")];
        assert!(reject_web_pages(&parts(&to_itself)).is_ok());
        let mut health = parts(&to_itself);
        health.uri = "/health".parse().unwrap();
        assert!(reject_web_pages(&health).is_err());
        let elsewhere = [("host", "evil.test"), ("x-as-target-url", "https://api.test/v1")];
        assert!(reject_web_pages(&parts(&elsewhere)).is_err());
        let host = ("host", "localhost:8765");
        for (name, value) in [
            ("origin", "https://evil.test"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert!(reject_web_pages(&parts(&[host, (name, value)])).is_err(), "{name}: {value}");
        }
        assert!(
            reject_web_pages(&parts(&[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "cors")])).is_ok()
        );
        assert!(reject_web_pages(&parts(&[])).is_err());
    }
}
