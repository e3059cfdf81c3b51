//! Locations in a request where a secret may be: kinds of location, one injection point, and the patterns of
//! a rule's
//! `places`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use crate::types::json_path::JsonPath;
use crate::types::printable::excerpt;

/// A kind of location in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocationKind {
    /// `Authorization` (Basic's base64 too), `Proxy-Authorization`, and headers whose name says that
    /// they authenticate, such as `X-Api-Key`.
    Auth,
    /// Any other header.
    Header,
    /// `Cookie`.
    Cookie,
    /// The query string.
    Query,
    /// The path.
    Path,
    /// The string values of a JSON body.
    Json,
    /// The values of a form: a URL-encoded one's, or the text fields of a multipart one.
    Form,
    /// The text messages that an agent sends on a WebSocket.
    WebSocket,
}

const ALL_KINDS: [LocationKind; 8] = [
    LocationKind::Auth,
    LocationKind::Header,
    LocationKind::Cookie,
    LocationKind::Query,
    LocationKind::Path,
    LocationKind::Json,
    LocationKind::Form,
    LocationKind::WebSocket,
];

/// One location in a request: its kind and, if values have names there, the name. The name is empty for parts
/// that have none, such as the name of a query parameter itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InjectionPoint {
    /// The kind of location.
    pub kind: LocationKind,
    /// The header in lower case, cookie, parameter or field, or the path in a JSON document.
    pub name: Arc<str>,
}

/// One entry of a rule's `places`: the locations where placeholders are filled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LocationPattern {
    /// Every location of this kind.
    Kind(LocationKind),
    /// This location alone.
    Exact(InjectionPoint),
}

impl LocationKind {
    /// The name in a policy's `places`.
    pub fn as_str(self) -> &'static str {
        match self {
            LocationKind::Auth => "auth",
            LocationKind::Header => "header",
            LocationKind::Cookie => "cookie",
            LocationKind::Query => "query",
            LocationKind::Path => "path",
            LocationKind::Json => "json",
            LocationKind::Form => "form",
            LocationKind::WebSocket => "websocket",
        }
    }

    /// The kind of location of a header.
    pub fn of_header(name: &HeaderName) -> Self {
        if name == COOKIE {
            LocationKind::Cookie
        } else if authenticates(name) {
            LocationKind::Auth
        } else {
            LocationKind::Header
        }
    }

    /// Whether it is in the body.
    pub fn is_in_body(self) -> bool {
        matches!(self, LocationKind::Json | LocationKind::Form)
    }
}

impl InjectionPoint {
    /// The location of this kind and name.
    pub fn new(kind: LocationKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The location of a header's value.
    pub fn header(name: &HeaderName) -> Self {
        Self::new(LocationKind::of_header(name), name.as_str())
    }
}

impl LocationPattern {
    /// Patterns that match every location.
    pub(super) fn all() -> Vec<Self> {
        ALL_KINDS.map(Self::Kind).to_vec()
    }

    /// Whether `point` matches.
    pub(crate) fn matches(&self, point: &InjectionPoint) -> bool {
        match self {
            LocationPattern::Kind(kind) => *kind == point.kind,
            LocationPattern::Exact(exact) => exact == point,
        }
    }

    /// The kind of the matching locations.
    pub(crate) fn kind(&self) -> LocationKind {
        match self {
            LocationPattern::Kind(kind) | LocationPattern::Exact(InjectionPoint { kind, .. }) => *kind,
        }
    }
}

impl FromStr for LocationPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once(':') else {
            let kind = ALL_KINDS.into_iter().find(|kind| kind.as_str() == text);
            return kind.map(LocationPattern::Kind).ok_or_else(|| invalid_location(text));
        };
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(invalid_location(text));
        }
        let point = match kind {
            "header" => {
                let name: HeaderName = name.parse().map_err(|_| invalid_location(text))?;
                if name == COOKIE {
                    return Err("'header:cookie' holds many: name one of them, such as cookie:session".into());
                }
                InjectionPoint::header(&name)
            }
            "cookie" => InjectionPoint::new(LocationKind::Cookie, name),
            "query" => InjectionPoint::new(LocationKind::Query, name),
            "form" => InjectionPoint::new(LocationKind::Form, name),
            "json" => InjectionPoint::new(LocationKind::Json, name.parse::<JsonPath>()?.to_string()),
            _ => return Err(invalid_location(text)),
        };
        Ok(LocationPattern::Exact(point))
    }
}

impl fmt::Display for LocationPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocationPattern::Kind(kind) => f.write_str(kind.as_str()),
            LocationPattern::Exact(point) => point.fmt(f),
        }
    }
}

impl fmt::Display for InjectionPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header that authenticates is written as any other.
        let kind = if self.kind == LocationKind::Auth { LocationKind::Header } else { self.kind };
        write!(f, "{}:{}", kind.as_str(), self.name)
    }
}

fn invalid_location(text: &str) -> String {
    format!(
        "'{}' is not a place; allowed are auth, header, cookie, query, path, json, form, websocket, or an exact \
         one: header:X-Name, cookie:c, query:p, form:f, json:a.client_secret",
        excerpt(text)
    )
}

/// Whether a header authenticates, by its name: one word means a credential, and none means another kind of
/// key or token, such as an idempotency key, which servers store or show.
fn authenticates(name: &HeaderName) -> bool {
    let credential = |word: &str| {
        matches!(
            word,
            "auth" | "authorization" | "authentication" | "apikey" | "key" | "token" | "secret" | "password"
        )
    };
    let other = |word: &str| {
        matches!(
            word,
            "idempotency"
                | "idempotent"
                | "websocket"
                | "surrogate"
                | "cache"
                | "partition"
                | "routing"
                | "continuation"
                | "page"
                | "csrf"
                | "xsrf"
                | "object"
                | "sort"
        )
    };
    let words = || name.as_str().split(['-', '_']);
    name == AUTHORIZATION || name == PROXY_AUTHORIZATION || (words().any(credential) && !words().any(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> LocationPattern {
        text.parse().unwrap()
    }

    #[test]
    fn exact_pattern_matches_one_location() {
        let json = pattern("json:a.client_secret");
        assert!(json.matches(&InjectionPoint::new(LocationKind::Json, "a.client_secret")));
        for other in ["a", "a.client_secret.b", "client_secret", "b.client_secret", r"a\.client_secret"] {
            assert!(!json.matches(&InjectionPoint::new(LocationKind::Json, other)), "{other}");
        }
        assert!(!json.matches(&InjectionPoint::new(LocationKind::Form, "a.client_secret")));
        assert!(pattern("json").matches(&InjectionPoint::new(LocationKind::Json, "anything")));
        let key = HeaderName::from_static("x-api-key");
        assert!(pattern("header:X-API-Key").matches(&InjectionPoint::header(&key)));
        assert!(
            pattern("auth").matches(&InjectionPoint::header(&key))
                && !pattern("header").matches(&InjectionPoint::header(&key))
        );
    }

    #[test]
    fn display_equals_input() {
        for text in ["auth", "path", "json", "json:a[0].b", "form:f g", "cookie:c", "query:p", "websocket"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("header:X-Api-Key").to_string(), "header:x-api-key");
    }

    #[test]
    fn invalid_location_is_refused() {
        for bad in
            ["", "body", "json:", "json:a..b", "path:x", "auth:x", "header:a b", "header:Cookie", "form:\n"]
        {
            assert!(bad.parse::<LocationPattern>().is_err(), "{bad}");
        }
    }
}
