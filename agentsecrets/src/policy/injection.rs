//! The ways in which a secret gets into a request, shared by policy rules, the `X-AS-Inject-*` headers and
//! the command line: this is the only parser and printer of their locations. A style that could change the
//! framing of a message is refused.

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::location::{InjectionPoint, LocationKind};
use crate::types::hop_by_hop::{is_framing, is_internal};
use crate::types::json_path::JsonPath;
use crate::types::name::SecretName;
use crate::types::printable::excerpt;

/// One secret to spend, and its style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret.
    pub name: SecretName,
    /// The way in which it gets into the request.
    pub style: InjectionStyle,
}

/// The way in which a secret gets into a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InjectionStyle {
    /// In place of its placeholder.
    Placeholder(InjectionPoint),
    /// As `Authorization: Bearer …`.
    Bearer,
    /// As `Authorization: Basic …`; the secret is `user:password`.
    Basic,
    /// As the whole value of this header.
    Header(HeaderName),
    /// As the value of this query parameter.
    Query(Arc<str>),
    /// In place of this text in the path.
    Path(Arc<str>),
    /// As the value of this cookie.
    Cookie(Arc<str>),
    /// As the string at this path of the JSON body.
    Json(Arc<JsonPath>),
    /// As the value of this field of the form in the body.
    Form(Arc<str>),
    /// As the client's certificate in the TLS handshake, if the server asks for one. The secret is the
    /// certificate chain and its key, in PEM.
    ClientCertificate,
    /// In an AWS signature (version 4 or 4A), or as its session token.
    AwsSignature,
    /// In the keyed hash that its rule describes.
    HmacSignature,
}

impl InjectionStyle {
    /// Its name in audit records.
    pub fn as_str(&self) -> &'static str {
        match self {
            InjectionStyle::Placeholder(_) => "placeholder",
            InjectionStyle::Bearer => "bearer",
            InjectionStyle::Basic => "basic",
            InjectionStyle::Header(_) => "header",
            InjectionStyle::Query(_) => "query",
            InjectionStyle::Path(_) => "path",
            InjectionStyle::Cookie(_) => "cookie",
            InjectionStyle::Json(_) => "json",
            InjectionStyle::Form(_) => "form",
            InjectionStyle::ClientCertificate => "client_certificate",
            InjectionStyle::AwsSignature => "aws_sigv4",
            InjectionStyle::HmacSignature => "hmac",
        }
    }

    /// Parses a location: its kind and, unless that is `bearer` or `basic`, its name (a header, parameter,
    /// cookie or field, or a path). Returns `None` if the kind is unknown, or the name missing or
    /// superfluous.
    pub(crate) fn parse(kind: &str, name: Option<&str>) -> Result<Option<Self>, String> {
        Ok(Some(match (kind, name) {
            ("bearer", None) => InjectionStyle::Bearer,
            ("basic", None) => InjectionStyle::Basic,
            ("header", Some(name)) => InjectionStyle::Header(parse_injectable_header(name)?),
            ("query", Some(name)) => InjectionStyle::Query(parse_name("query parameter", name)?),
            ("path", Some(text)) => InjectionStyle::Path(parse_path_segment(text)?),
            ("cookie", Some(name)) => InjectionStyle::Cookie(parse_cookie_name(name)?),
            ("json" | "body", Some(path)) => InjectionStyle::Json(parse_body_path(path)?),
            ("form", Some(name)) => InjectionStyle::Form(parse_name("form field", name)?),
            _ => return Ok(None),
        }))
    }

    /// Parses a location that a request may name itself, in `X-AS-Inject-*` headers, on the command line or
    /// through MCP. Cookies and paths are for rules only, and a JSON path is of kind `body`.
    pub(crate) fn parse_requested(kind: &str, name: Option<&str>) -> Result<Option<Self>, String> {
        match kind {
            "bearer" | "basic" | "header" | "query" | "body" | "form" => Self::parse(kind, name),
            _ => Ok(None),
        }
    }

    /// The kind and name of a location that a request may name itself; the inverse of `parse_requested`.
    pub(crate) fn requested_parts(&self) -> Option<(&'static str, Option<String>)> {
        Some(match self {
            InjectionStyle::Bearer => ("bearer", None),
            InjectionStyle::Basic => ("basic", None),
            InjectionStyle::Header(name) => ("header", Some(name.to_string())),
            InjectionStyle::Query(name) => ("query", Some(name.to_string())),
            InjectionStyle::Json(path) => ("body", Some(path.to_string())),
            InjectionStyle::Form(name) => ("form", Some(name.to_string())),
            _ => return None,
        })
    }

    /// The location of the secret in the request, or `None` if the request does not contain it.
    pub fn injection_point(&self) -> Option<InjectionPoint> {
        Some(match self {
            InjectionStyle::Placeholder(point) => point.clone(),
            InjectionStyle::Bearer | InjectionStyle::Basic => InjectionPoint::header(&AUTHORIZATION),
            InjectionStyle::Header(name) => InjectionPoint::header(name),
            InjectionStyle::Query(name) => InjectionPoint::new(LocationKind::Query, name.clone()),
            InjectionStyle::Path(_) => InjectionPoint::new(LocationKind::Path, ""),
            InjectionStyle::Cookie(name) => InjectionPoint::new(LocationKind::Cookie, name.clone()),
            InjectionStyle::Json(path) => InjectionPoint::new(LocationKind::Json, path.to_string()),
            InjectionStyle::Form(name) => InjectionPoint::new(LocationKind::Form, name.clone()),
            InjectionStyle::ClientCertificate
            | InjectionStyle::AwsSignature
            | InjectionStyle::HmacSignature => return None,
        })
    }

    /// Whether it changes the body.
    pub fn is_in_body(&self) -> bool {
        match self {
            InjectionStyle::Placeholder(point) => point.kind.is_in_body(),
            InjectionStyle::Json(_) | InjectionStyle::Form(_) => true,
            _ => false,
        }
    }
}

/// The reason why one request cannot have both styles, or `None`.
pub(crate) fn style_conflict(one: &InjectionStyle, other: &InjectionStyle) -> Option<String> {
    let keys = |style: &InjectionStyle| match style {
        InjectionStyle::Json(path) => {
            path.keys().map(|keys| keys.into_iter().map(str::to_owned).collect::<Vec<_>>())
        }
        _ => None,
    };
    if let (Some(one), Some(other)) = (keys(one), keys(other))
        && (one.starts_with(&other) || other.starts_with(&one))
    {
        return Some("two secrets are injected into one value of the JSON body".to_owned());
    }
    let points = one.injection_point().zip(other.injection_point())?;
    match (one, other) {
        (InjectionStyle::Path(one), InjectionStyle::Path(other)) => (one.contains(&**other)
            || other.contains(&**one))
        .then(|| format!("'{one}' and '{other}' overlap in the path")),
        (InjectionStyle::Json(_), InjectionStyle::Form(_))
        | (InjectionStyle::Form(_), InjectionStyle::Json(_)) => {
            Some("a body is JSON or a form, never both".to_owned())
        }
        (InjectionStyle::Header(name), InjectionStyle::Cookie(_))
        | (InjectionStyle::Cookie(_), InjectionStyle::Header(name))
            if name == COOKIE =>
        {
            Some("two secrets are injected into the header 'cookie'".to_owned())
        }
        _ if points.0 == points.1 => Some(match points.0 {
            InjectionPoint {
                kind: LocationKind::Auth | LocationKind::Header | LocationKind::Cookie,
                name,
            } => {
                format!("two secrets are injected into the header '{name}'")
            }
            point => format!("two secrets are injected into '{point}'"),
        }),
        _ => None,
    }
}

/// Parses the name of a header that may carry a secret. Headers that frame the message or name the server may
/// not.
pub(crate) fn parse_injectable_header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("'{}' is not a header name", excerpt(text)))?;
    let of_the_body = matches!(name.as_str(), "content-encoding" | "content-type");
    if of_the_body || is_framing(name.as_str()) || is_internal(&name) {
        return Err(format!("the header '{name}' cannot carry a secret"));
    }
    Ok(name)
}

/// Parses a path of keys in a JSON body.
fn parse_body_path(text: &str) -> Result<Arc<JsonPath>, String> {
    let path: JsonPath = text.parse()?;
    if path.keys().is_none() {
        return Err(format!("'{}' leads through an array: a secret is put in by keys alone", excerpt(text)));
    }
    Ok(Arc::new(path))
}

/// Parses the text in a path that is replaced: a word in braces.
fn parse_path_segment(text: &str) -> Result<Arc<str>, String> {
    let inner = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or_default();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if inner.is_empty() || !inner.chars().all(word) {
        return Err(format!(
            "'{}' does not stand for a part of the path; write it as {{token}}",
            excerpt(text)
        ));
    }
    Ok(text.into())
}

fn parse_cookie_name(text: &str) -> Result<Arc<str>, String> {
    // A cookie's name is a token, as a header's is.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(format!("'{}' is not a cookie's name", excerpt(text)));
    }
    Ok(text.into())
}

/// Parses a non-empty name; `kind` is its noun for the message.
fn parse_name(kind: &str, name: &str) -> Result<Arc<str>, String> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(format!("a {kind} needs a name"));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_location_is_printed_as_parsed() {
        for (kind, name) in [
            ("bearer", None),
            ("basic", None),
            ("header", Some("x-api-key")),
            ("query", Some("apiKey")),
            ("body", Some("a.b")),
            ("form", Some("client_secret")),
        ] {
            let style = InjectionStyle::parse_requested(kind, name).unwrap().unwrap();
            assert_eq!(style.requested_parts(), Some((kind, name.map(str::to_owned))));
        }
        for (kind, name) in
            [("cookie", Some("c")), ("path", Some("{t}")), ("json", Some("a")), ("bearer", Some("x"))]
        {
            assert_eq!(InjectionStyle::parse_requested(kind, name), Ok(None), "{kind}");
        }
    }
}
