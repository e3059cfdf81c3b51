//! The explicit endpoint, `/proxy`: a request in whose headers another one is described. Here the one becomes
//! the other; what it may do is decided later, as for any request.

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};

use crate::types::host::Host;
use crate::types::presented::Shown;
use crate::types::rejection::{ErrorCode, Rejection};

const TARGET_URL: HeaderName = HeaderName::from_static("x-as-target-url");
const METHOD: HeaderName = HeaderName::from_static("x-as-method");
const AGENT: HeaderName = HeaderName::from_static("x-as-agent-id");
const TOKENS: [HeaderName; 2] =
    [HeaderName::from_static("x-as-agent-token"), HeaderName::from_static("x-as-session-token")];
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const INJECT: &str = "x-as-inject-";

/// What the headers of a request show of its client; where it was sent to us as to a proxy, so does the one for
/// proxies, which is taken off.
pub fn shown(headers: &mut HeaderMap, to_a_proxy: bool) -> Shown {
    let mut shown = Shown::default();
    for value in TOKENS.iter().flat_map(|name| headers.get_all(name)) {
        shown = shown.and_token(value.to_str().unwrap_or_default().trim());
    }
    if to_a_proxy {
        for value in headers.get_all(PROXY_AUTHORIZATION) {
            shown = shown.and_authorization(value.as_bytes());
        }
        headers.remove(PROXY_AUTHORIZATION);
    }
    for value in headers.get_all(AGENT).iter().filter(|value| !value.is_empty()) {
        shown = shown.and_name(value.to_str().unwrap_or_default().trim());
    }
    shown
}

/// Refuses what a web page could send to our port: requests to a name that is not the loopback's, which a page
/// can have lead here, and requests that a browser says come from elsewhere. The name of the very server
/// that the request is for passes (the original's Python library leaves it there): a page of that server's
/// could get no further than to its own server.
pub fn no_web_page(parts: &Parts) -> Result<(), Rejection> {
    let host = only(&parts.headers, &HOST)?.unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_loopback = match name.parse::<Host>() {
        Ok(Host::Ip(ip)) => ip.is_loopback(),
        Ok(Host::Name(name)) => &*name == "localhost",
        Err(_) => false,
    };
    let target = only(&parts.headers, &TARGET_URL)?.filter(|_| parts.uri.path() == "/proxy");
    let target = target.and_then(|url| url.parse::<Uri>().ok());
    let is_target = target.and_then(|uri| Some(uri.authority()?.as_str().eq_ignore_ascii_case(host)));
    if !is_loopback && is_target != Some(true) {
        let message = "this is a proxy: ask it at its loopback address, such as http://localhost:8765";
        return Err(Rejection::new(ErrorCode::TargetMismatch, "", message));
    }
    let foreign = parts.headers.get_all(&SITE).iter().any(|site| site != "none");
    if foreign || parts.headers.contains_key(ORIGIN) {
        return Err(Rejection::new(ErrorCode::CapabilityDenied, "", "web pages may not use this proxy"));
    }
    Ok(())
}

/// Makes of a request to the endpoint the one that it describes. Its `X-AS-Inject-…` headers stay with it. The
/// agent entry that it names, which is no proof.
pub fn unfold(parts: &mut Parts) -> Result<Option<String>, Rejection> {
    let bad = |message: &str| Rejection::new(ErrorCode::BadRequest, "", message);
    let url =
        only(&parts.headers, &TARGET_URL)?.ok_or_else(|| bad("the header X-AS-Target-URL is missing"))?;
    let no_url = || bad("X-AS-Target-URL must begin with https:// or http:// and name a host");
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let authority = match (uri.scheme_str(), uri.authority()) {
        (Some("https" | "http"), Some(authority)) => HeaderValue::try_from(authority.as_str()),
        _ => return Err(no_url()),
    };
    let authority = authority.map_err(|_| no_url())?;
    let method = match only(&parts.headers, &METHOD)? {
        Some(method) => Some(
            method.to_ascii_uppercase().parse::<Method>().map_err(|_| bad("X-AS-Method is not a method"))?,
        ),
        None => None,
    };
    if !parts.headers.keys().any(|name| name.as_str().starts_with(INJECT)) {
        return Err(bad(
            "no secret is asked for: give one of X-AS-Inject-Bearer, -Basic, -Header-<Name>, -Query-<p>, \
             -Body-<path>, -Form-<f>",
        ));
    }
    let agent = only(&parts.headers, &AGENT)?.filter(|agent| !agent.is_empty()).map(str::to_owned);
    parts.method = method.unwrap_or_else(|| parts.method.clone());
    parts.uri = uri;
    parts.headers.insert(HOST, authority);
    Ok(agent)
}

/// The value of a header that may stand there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Rejection> {
    let bad = |what: &str| Rejection::new(ErrorCode::BadRequest, "", format!("the header {name} {what}"));
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(bad("stands there twice")),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| bad("is no text")),
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
    fn the_request_that_is_described_comes_out() {
        let mut parts = parts(&[
            ("host", "localhost:8765"),
            ("x-as-target-url", "https://api.test:8443/v1/me?a=b"),
            ("x-as-method", "delete"),
            ("x-as-agent-id", "coder"),
            ("x-as-inject-bearer", "KEY"),
            ("x-note", "kept"),
        ]);
        let said = unfold(&mut parts).unwrap();
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
    fn what_is_missing_doubled_or_no_url_is_refused() {
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
            assert_eq!(unfold(&mut parts(headers)).unwrap_err().code, ErrorCode::BadRequest, "{headers:?}");
        }
    }

    #[test]
    fn a_page_is_told_by_its_origin_its_site_or_the_name_it_asks_for() {
        for host in ["localhost", "localhost:8765", "127.0.0.1:8765", "[::1]:8765", "127.9.9.9"] {
            assert!(no_web_page(&parts(&[("host", host)])).is_ok(), "{host}");
        }
        for host in ["evil.test:8765", "localhost.evil.test", "10.0.0.1", "", "localhost@evil.test"] {
            assert!(no_web_page(&parts(&[("host", host)])).is_err(), "{host}");
        }
        let to_itself = [("host", "api.test"), ("x-as-target-url", "https://api.test/v1")];
        assert!(no_web_page(&parts(&to_itself)).is_ok());
        let mut health = parts(&to_itself);
        health.uri = "/health".parse().unwrap();
        assert!(no_web_page(&health).is_err());
        let elsewhere = [("host", "evil.test"), ("x-as-target-url", "https://api.test/v1")];
        assert!(no_web_page(&parts(&elsewhere)).is_err());
        let host = ("host", "localhost:8765");
        for (name, value) in [
            ("origin", "https://evil.test"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert!(no_web_page(&parts(&[host, (name, value)])).is_err(), "{name}: {value}");
        }
        assert!(no_web_page(&parts(&[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "cors")])).is_ok());
        assert!(no_web_page(&parts(&[])).is_err());
    }
}
