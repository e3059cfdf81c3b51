//! The properties of a request that rules decide on.

use http::Method;

use crate::types::name::SecretName;
use crate::types::target::Target;

use super::injection::InjectionStyle;
use super::location::InjectionPoint;

/// One request to be decided.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// The normalized authority.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path as received, still encoded, without the query.
    pub path: &'a str,
    /// Whether it opens a WebSocket, whose messages may refer to secrets too.
    pub websocket: bool,
    /// The references to secrets in the request.
    pub references: &'a [SecretReference],
}

/// A reference to a secret in a request: a placeholder, or an injection header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretReference {
    /// The secret.
    pub name: SecretName,
    /// The way in which it gets into the request.
    pub style: InjectionStyle,
}

impl SecretReference {
    /// A placeholder for `name` at `point`.
    pub fn placeholder(name: SecretName, point: InjectionPoint) -> Self {
        Self { name, style: InjectionStyle::Placeholder(point) }
    }

    /// Whether it is a placeholder. Such text may be a mere quotation.
    pub fn is_placeholder(&self) -> bool {
        matches!(self.style, InjectionStyle::Placeholder(_))
    }
}
