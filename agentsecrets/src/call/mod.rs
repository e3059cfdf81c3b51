//! One request that a program of ours makes for somebody who names secrets and never holds their values: a
//! person (`call`), a model (`mcp serve`), a framework's plugin (`mcp bridge`). Each says in its own way what
//! it wants; here it becomes a request, is sent and answered, in one.

mod injection;
mod json_error;
mod local;
mod remote;
mod response;

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::policy::grant::Style;
use crate::policy::inject_rules::FRAMING;
use crate::types::body::{Body, empty, full};
use crate::types::failure::Failure;

pub use injection::Injection;
pub use json_error::describe as describe_json_error;
pub use local::Here;
pub use remote::send;
pub use response::{Answer, refused};

/// What somebody wants to be sent. It holds no secret.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Where to.
    pub url: String,
    /// The method; `GET` if it is empty.
    pub method: String,
    /// Headers besides those that every request has.
    pub headers: Vec<(String, String)>,
    /// The body: sent as JSON if it is JSON, else as a form, where no header says otherwise.
    pub body: Option<String>,
}

/// What of it cannot be sent, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Wrong {
    what: &'static str,
    why: String,
}

/// The way on which requests go out.
pub enum Door {
    /// Through every stage, in this process.
    Here(Here),
    /// As any request of the agent that this process is part of: its interceptor has the stages.
    Wire {
        /// The token that the agent shows.
        token: Option<String>,
    },
}

impl Door {
    /// Sends `request` with the secrets of `injections`, and reads at most so many bytes of the answer. What
    /// is left of it when this returns, or is dropped, is broken off.
    pub async fn ask(
        &self,
        request: Request<Body>,
        injections: &[Injection],
        most: usize,
    ) -> Result<Answer, Failure> {
        match self {
            Door::Here(here) => Ok(Answer::read(here.send(request, injections).await?, most).await),
            Door::Wire { token } => {
                let response = remote::ask(request, injections, token.as_deref()).await?;
                Ok(Answer::read(response, most).await.with_the_wires_refusal())
            }
        }
    }
}

impl Wanted {
    /// The request, and the secrets that are to go into it: `injections` says for each place which.
    pub fn spending(
        &self,
        injections: &BTreeMap<String, String>,
    ) -> Result<(Request<Body>, Vec<Injection>), Wrong> {
        let injections = injections.iter().map(|(spec, key)| Injection::read(spec, key));
        let injections: Vec<_> =
            injections.collect::<Result<_, _>>().map_err(|why| Wrong { what: "injections", why })?;
        Ok((self.request(&injections)?, injections))
    }

    /// The request, without any secret; what `injections` put into a body needs one to be there.
    pub fn request(&self, injections: &[Injection]) -> Result<Request<Body>, Wrong> {
        let wrong = |what, why: &dyn std::fmt::Display| Wrong { what, why: why.to_string() };
        let url = url::Url::parse(&self.url).map_err(|error| wrong("url", &error))?;
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err(wrong("url", &"it must begin with https:// or http:// and name a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("url", &"it holds a user or password; store them, and use `basic`"));
        }
        let method = match self.method.to_ascii_uppercase().as_str() {
            "" => Method::GET,
            named => named
                .parse()
                .ok()
                .filter(|method| *method != Method::CONNECT)
                .ok_or_else(|| wrong("method", &format!("'{}' is no method", named.escape_debug())))?,
        };
        let styles = || injections.iter().map(|injection| &injection.reference.style);
        let body = match &self.body {
            Some(body) => Some(body.clone()),
            None if styles().any(|style| matches!(style, Style::Json(_))) => Some("{}".to_owned()),
            None if styles().any(|style| matches!(style, Style::Form(_))) => Some(String::new()),
            None => None,
        };
        let mut headers = headers(&self.headers)?;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let us = HeaderValue::from_static(concat!("agentsecrets/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(us);
        let authority = HeaderValue::try_from(url.authority());
        headers.insert(HOST, authority.map_err(|_| wrong("url", &"its host is not valid"))?);
        if let Some(body) = &body {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
            let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut request = Request::new(body.map_or_else(empty, full));
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|error| wrong("url", &error))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// `given` as headers. What stands in their values may be a secret that was put there by mistake, and is not
/// repeated.
fn headers(given: &[(String, String)]) -> Result<HeaderMap, Wrong> {
    let mut headers = HeaderMap::with_capacity(given.len() + 5);
    for (name, value) in given {
        let shown = name.chars().take(40).flat_map(char::escape_debug).collect::<String>();
        let wrong = |why: &str| Wrong { what: "headers", why: format!("'{shown}' {why}") };
        let name = HeaderName::try_from(name).map_err(|_| wrong("is no header's name"))?;
        if FRAMING.contains(&name.as_str()) {
            return Err(wrong("is not for you to set"));
        }
        if name.as_str().starts_with("x-as-") {
            return Err(wrong("is one of ours: name secrets under `injections`"));
        }
        let value = HeaderValue::try_from(value).map_err(|_| wrong("has a value that no header can have"))?;
        if headers.insert(name, value).is_some() {
            return Err(wrong("stands there twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(url: &str, method: &str, headers: &[(&str, &str)], body: Option<&str>) -> Wanted {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Wanted { url: url.into(), method: method.into(), headers, body: body.map(str::to_owned) }
    }

    #[test]
    fn what_is_given_stands_and_the_rest_is_ours() {
        let given = [("content-type", "text/plain"), ("Accept", "text/csv")];
        let request = wanted("https://api.test/v1#part", "post", &given, Some("{}")).request(&[]).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1"));
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("accept"), header("content-type")), ("text/csv".into(), "text/plain".into()));
        assert_eq!((header("host"), header("content-length")), ("api.test".into(), "2".into()));
        let bearer = [Injection::read("body:a.b", "KEY").unwrap()];
        let request = wanted("https://api.test/", "", &[], None).request(&bearer).unwrap();
        assert_eq!(
            (request.method(), &request.headers()["content-type"]),
            (&Method::GET, &HeaderValue::from_static("application/json"))
        );
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_repeating_a_headers_value() {
        for (url, method, headers, what) in [
            ("/relative", "", &[][..], "url: "),
            ("ftp://api.test/", "", &[], "url: "),
            ("https://user:pass@api.test/", "", &[], "url: it holds a user"),
            ("https://api.test/", "GE T", &[], "method: 'GE T'"),
            ("https://api.test/", "connect", &[], "method: 'CONNECT'"),
            ("https://api.test/", "", &[("Host", "other.test")], "headers: 'Host'"),
            ("https://api.test/", "", &[("Transfer-Encoding", "chunked")], "headers: "),
            ("https://api.test/", "", &[("X-AS-Inject-Bearer", "KEY")], "headers: "),
            ("https://api.test/", "", &[("X-A", "sk_live_x\r\nX-B: c")], "headers: 'X-A' has a value"),
            ("https://api.test/", "", &[("X-A", "1"), ("x-a", "2")], "headers: 'x-a' stands there twice"),
        ] {
            let wrong = wanted(url, method, headers, None).request(&[]).unwrap_err().to_string();
            assert!(wrong.starts_with(what) && !wrong.contains("sk_live"), "{wrong}");
        }
    }
}
