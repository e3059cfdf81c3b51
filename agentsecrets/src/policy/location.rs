//! Where in a request a secret may stand: the kinds of place, the one spot where something stands, and
//! what a rule's `places` lets be filled.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use crate::types::json_path::JsonPath;
use crate::types::printable::excerpt;

/// A kind of place in a request where a placeholder may be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
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

/// Every kind.
const PLACES: [Place; 8] = [
    Place::Auth,
    Place::Header,
    Place::Cookie,
    Place::Query,
    Place::Path,
    Place::Json,
    Place::Form,
    Place::WebSocket,
];

/// One spot in a request: a kind of place and, where things have names there, whose value it is. A spot
/// without a name is that of what has none, such as the name of a query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The kind.
    pub place: Place,
    /// The header in lower case, cookie, parameter or field, or the path in a JSON document.
    pub name: Arc<str>,
}

/// What one entry of a rule's `places` lets be filled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Area {
    /// Every spot of this kind.
    Every(Place),
    /// This spot alone.
    Only(Spot),
}

impl Place {
    /// Its name in a policy's `places`.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Auth => "auth",
            Place::Header => "header",
            Place::Cookie => "cookie",
            Place::Query => "query",
            Place::Path => "path",
            Place::Json => "json",
            Place::Form => "form",
            Place::WebSocket => "websocket",
        }
    }

    /// The kind of place that a header is.
    pub fn of_header(name: &HeaderName) -> Self {
        if name == COOKIE {
            Place::Cookie
        } else if authenticates(name) {
            Place::Auth
        } else {
            Place::Header
        }
    }

    /// Whether it lies in a request's body.
    pub fn is_in_body(self) -> bool {
        matches!(self, Place::Json | Place::Form)
    }
}

impl Spot {
    /// The spot of this name.
    pub fn new(place: Place, name: impl Into<Arc<str>>) -> Self {
        Self { place, name: name.into() }
    }

    /// The value of this header.
    pub fn header(name: &HeaderName) -> Self {
        Self::new(Place::of_header(name), name.as_str())
    }
}

impl Area {
    /// Every spot there is.
    pub(super) fn everywhere() -> Vec<Self> {
        PLACES.map(Self::Every).to_vec()
    }

    /// Whether `spot` lies in it.
    pub fn holds(&self, spot: &Spot) -> bool {
        match self {
            Area::Every(place) => *place == spot.place,
            Area::Only(only) => only == spot,
        }
    }

    /// Its kind of place.
    pub fn place(&self) -> Place {
        match self {
            Area::Every(place) | Area::Only(Spot { place, .. }) => *place,
        }
    }
}

impl FromStr for Area {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once(':') else {
            let kind = PLACES.into_iter().find(|kind| kind.as_str() == text);
            return kind.map(Area::Every).ok_or_else(|| no_place(text));
        };
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(no_place(text));
        }
        let spot = match kind {
            "header" => {
                let name: HeaderName = name.parse().map_err(|_| no_place(text))?;
                if name == COOKIE {
                    return Err("'header:cookie' holds many: name one of them, such as cookie:session".into());
                }
                Spot::header(&name)
            }
            "cookie" => Spot::new(Place::Cookie, name),
            "query" => Spot::new(Place::Query, name),
            "form" => Spot::new(Place::Form, name),
            "json" => Spot::new(Place::Json, name.parse::<JsonPath>()?.to_string()),
            _ => return Err(no_place(text)),
        };
        Ok(Area::Only(spot))
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Area::Every(place) => f.write_str(place.as_str()),
            Area::Only(Spot { place: Place::Auth, name }) => write!(f, "header:{name}"),
            Area::Only(Spot { place, name }) => write!(f, "{}:{name}", place.as_str()),
        }
    }
}

fn no_place(text: &str) -> String {
    format!(
        "'{}' is not a place; allowed are auth, header, cookie, query, path, json, form, websocket, or an exact \
         one: header:X-Name, cookie:c, query:p, form:f, json:a.client_secret",
        excerpt(text)
    )
}

/// Whether a header's name says that it authenticates: one of its words is a credential's, and none says that
/// the key or token is of another kind, which servers store or show.
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

    fn area(text: &str) -> Area {
        text.parse().unwrap()
    }

    #[test]
    fn an_exact_place_is_that_spot_and_no_other() {
        let json = area("json:a.client_secret");
        assert!(json.holds(&Spot::new(Place::Json, "a.client_secret")));
        for other in ["a", "a.client_secret.b", "client_secret", "b.client_secret", r"a\.client_secret"] {
            assert!(!json.holds(&Spot::new(Place::Json, other)), "{other}");
        }
        assert!(!json.holds(&Spot::new(Place::Form, "a.client_secret")));
        assert!(area("json").holds(&Spot::new(Place::Json, "anything")));
        let key = HeaderName::from_static("x-api-key");
        assert!(area("header:X-API-Key").holds(&Spot::header(&key)));
        assert!(area("auth").holds(&Spot::header(&key)) && !area("header").holds(&Spot::header(&key)));
    }

    #[test]
    fn a_place_is_shown_as_it_is_written() {
        for text in ["auth", "path", "json", "json:a[0].b", "form:f g", "cookie:c", "query:p", "websocket"] {
            assert_eq!(area(text).to_string(), text);
        }
        assert_eq!(area("header:X-Api-Key").to_string(), "header:x-api-key");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in
            ["", "body", "json:", "json:a..b", "path:x", "auth:x", "header:a b", "header:Cookie", "form:\n"]
        {
            assert!(bad.parse::<Area>().is_err(), "{bad}");
        }
    }
}
