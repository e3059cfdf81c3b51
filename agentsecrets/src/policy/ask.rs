//! What is put to the policy: a request, stripped to what rules can speak about.

use http::Method;

use crate::base::name::SecretName;
use crate::exchange::target::Target;

/// One request to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The agreed authority.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path as it came, still encoded, without the query.
    pub path: &'a str,
    /// Whether it asks for a WebSocket, whose messages may name secrets too.
    pub websocket: bool,
    /// The secrets that the request names.
    pub references: &'a [Reference],
}

/// A secret that a request names, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Which secret.
    pub name: SecretName,
    /// Where it stands.
    pub place: Place,
}

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
    /// The text messages that an agent sends on a WebSocket.
    WebSocket,
}

/// Every kind of place.
pub(super) fn everywhere() -> Vec<Place> {
    vec![Place::Auth, Place::Header, Place::Cookie, Place::Query, Place::WebSocket]
}

impl Place {
    /// Its name in a policy's `places`.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Auth => "auth",
            Place::Header => "header",
            Place::Cookie => "cookie",
            Place::Query => "query",
            Place::WebSocket => "websocket",
        }
    }
}
