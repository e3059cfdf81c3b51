//! Builds and sends one request for a caller that names secrets but never holds their values: a person
//! (`call`), a model (`mcp serve`) or a framework's plugin (`mcp bridge`).

mod injection;
mod json_error;
mod local;
mod remote;
mod response;

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::policy::injection::InjectionStyle;
use crate::types::body::{Body, empty, full};
use crate::types::failure::Failure;
use crate::types::hop_by_hop::{is_framing, is_internal};

pub(crate) use injection::Injection;
pub(crate) use json_error::describe as describe_json_error;
pub(crate) use local::LocalSender;
pub(crate) use remote::send;
pub(crate) use response::CallResponse;

/// The description of a request. It holds no secret.
#[derive(Debug, Default)]
pub(crate) struct RequestSpec {
    pub(crate) url: String,
    /// The method; `GET` if it is empty.
    pub(crate) method: String,
    /// Headers in addition to those that every request has.
    pub(crate) headers: Vec<(String, String)>,
    /// The body. Without a `Content-Type` header it is sent as JSON if it is JSON, otherwise as a form.
    pub(crate) body: Option<String>,
}

/// An invalid part of a [`RequestSpec`].
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct InvalidRequest {
    field: &'static str,
    reason: String,
}

/// Sends requests.
pub(crate) enum Sender {
    /// Through the pipeline, in this process.
    Local(LocalSender),
    /// Through the interceptor, as a request of the agent that this process belongs to.
    Remote {
        /// The token of the agent.
        token: Option<String>,
    },
}

impl Sender {
    /// Sends `request` with the secrets of `injections`, and reads at most `max_bytes` of the response. The
    /// rest of the response is cancelled when this returns or is dropped.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        injections: &[Injection],
        max_bytes: usize,
    ) -> Result<CallResponse, Failure> {
        match self {
            Sender::Local(here) => {
                Ok(CallResponse::read(here.send(request, injections).await?, max_bytes).await)
            }
            Sender::Remote { token } => {
                let response = remote::send_with_injections(request, injections, token.as_deref()).await?;
                Ok(CallResponse::read(response, max_bytes).await.with_remote_rejection())
            }
        }
    }
}

impl RequestSpec {
    /// Builds the request, and parses `injections` (location to secret name).
    pub(crate) fn build_with_injections(
        &self,
        injections: &BTreeMap<String, String>,
    ) -> Result<(Request<Body>, Vec<Injection>), InvalidRequest> {
        let injections = injections.iter().map(|(spec, key)| Injection::parse(spec, key));
        let injections: Vec<_> = injections
            .collect::<Result<_, _>>()
            .map_err(|reason| InvalidRequest { field: "injections", reason })?;
        Ok((self.build(&injections)?, injections))
    }

    /// Builds the request without secrets. If `injections` go into a body, the request gets one.
    pub(crate) fn build(&self, injections: &[Injection]) -> Result<Request<Body>, InvalidRequest> {
        let invalid =
            |what, reason: &dyn std::fmt::Display| InvalidRequest { field: what, reason: reason.to_string() };
        let url = url::Url::parse(&self.url).map_err(|error| invalid("url", &error))?;
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err(invalid("url", &"it must begin with https:// or http:// and name a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("url", &"it holds a user or password; store them, and use `basic`"));
        }
        let method =
            match self.method.to_ascii_uppercase().as_str() {
                "" => Method::GET,
                named => named.parse().ok().filter(|method| *method != Method::CONNECT).ok_or_else(|| {
                    invalid("method", &format!("'{}' is not a method", named.escape_debug()))
                })?,
            };
        let styles = || injections.iter().map(|injection| &injection.reference.style);
        let body = match &self.body {
            Some(body) => Some(body.clone()),
            None if styles().any(|style| matches!(style, InjectionStyle::Json(_))) => Some("{}".to_owned()),
            None if styles().any(|style| matches!(style, InjectionStyle::Form(_))) => Some(String::new()),
            None => None,
        };
        let mut headers = headers(&self.headers)?;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let us = HeaderValue::from_static(concat!("agentsecrets/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(us);
        let authority = HeaderValue::try_from(url.authority());
        headers.insert(HOST, authority.map_err(|_| invalid("url", &"its host is not valid"))?);
        if let Some(body) = &body {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
            let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut request = Request::new(body.map_or_else(empty, full));
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|error| invalid("url", &error))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Parses headers. Errors do not repeat values, which may be secrets put there by mistake.
fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, InvalidRequest> {
    let mut headers = HeaderMap::with_capacity(pairs.len() + 5);
    for (name, value) in pairs {
        let shown = name.chars().take(40).flat_map(char::escape_debug).collect::<String>();
        let invalid =
            |reason: &str| InvalidRequest { field: "headers", reason: format!("'{shown}' {reason}") };
        let name = HeaderName::try_from(name).map_err(|_| invalid("is not a header name"))?;
        if is_framing(name.as_str()) {
            return Err(invalid("cannot be set"));
        }
        if is_internal(&name) {
            return Err(invalid("is reserved: name secrets under `injections`"));
        }
        let value = HeaderValue::try_from(value).map_err(|_| invalid("has an invalid value"))?;
        if headers.insert(name, value).is_some() {
            return Err(invalid("is given twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str, method: &str, headers: &[(&str, &str)], body: Option<&str>) -> RequestSpec {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        RequestSpec { url: url.into(), method: method.into(), headers, body: body.map(str::to_owned) }
    }

    #[test]
    fn given_headers_are_kept_and_defaults_added() {
        let pairs = [("content-type", "text/plain"), ("Accept", "text/csv")];
        let request = spec("https://api.test/v1#part", "post", &pairs, Some("{}")).build(&[]).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1"));
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("accept"), header("content-type")), ("text/csv".into(), "text/plain".into()));
        assert_eq!((header("host"), header("content-length")), ("api.test".into(), "2".into()));
        let bearer = [Injection::parse("body:a.b", "KEY").unwrap()];
        let request = spec("https://api.test/", "", &[], None).build(&bearer).unwrap();
        assert_eq!(
            (request.method(), &request.headers()["content-type"]),
            (&Method::GET, &HeaderValue::from_static("application/json"))
        );
    }

    #[test]
    fn invalid_request_is_refused_without_header_value() {
        for (url, method, headers, what) in [
            ("/relative", "", &[][..], "url: "),
            ("ftp://api.test/", "", &[], "url: "),
            ("https://user:pass@api.test/", "", &[], "url: it holds a user"),
            ("https://api.test/", "GE T", &[], "method: 'GE T'"),
            ("https://api.test/", "connect", &[], "method: 'CONNECT'"),
            ("https://api.test/", "", &[("Host", "other.test")], "headers: 'Host'"),
            ("https://api.test/", "", &[("Transfer-Encoding", "chunked")], "headers: "),
            ("https://api.test/", "", &[("X-AS-Inject-Bearer", "KEY")], "headers: "),
            (
                "https://api.test/",
                "",
                &[("X-A", "sk_live_x\r\nX-B: c")],
                "headers: 'X-A' has an invalid value",
            ),
            ("https://api.test/", "", &[("X-A", "1"), ("x-a", "2")], "headers: 'x-a' is given twice"),
        ] {
            let invalid = spec(url, method, headers, None).build(&[]).unwrap_err().to_string();
            assert!(invalid.starts_with(what) && !invalid.contains("sk_live"), "{invalid}");
        }
    }
}
