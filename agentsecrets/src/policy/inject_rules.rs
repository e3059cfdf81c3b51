//! What a rule puts in without being asked, judged: every secret has one spot of its own, and that spot
//! can carry a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::header::COOKIE;
use serde_yaml::Spanned;

use super::compile::Findings;
use super::grant::{Spend, Style};
use crate::policy::location::{Place, Spot};
use crate::policy::schema::{self, Text};
use crate::types::json_path::JsonPath;
use crate::types::printable::excerpt;

/// Reads what a secret is put into.
type ReadStyle = fn(&str) -> Result<Style, String>;

impl Findings {
    /// What `inject` says.
    pub(super) fn injects(&mut self, spanned: &Spanned<schema::Inject>) -> Vec<Spend> {
        let inject = &spanned.value;
        let mut spends: Vec<(&Text, Style)> = Vec::new();
        spends.extend(inject.bearer.iter().map(|name| (name, Style::Bearer)));
        spends.extend(inject.basic.iter().map(|name| (name, Style::Basic)));
        let kinds: [(&BTreeMap<String, Text>, ReadStyle); 6] = [
            (&inject.header, |name| injectable_header(name).map(Style::Header)),
            (&inject.query, |name| named("query parameter", name).map(Style::Query)),
            (&inject.path, literal),
            (&inject.cookie, cookie),
            (&inject.json, json),
            (&inject.form, |name| named("form field", name).map(Style::Form)),
        ];
        for (entries, read) in kinds {
            for (what, name) in entries {
                spends.extend(self.keep(name, read(what)).map(|style| (name, style)));
            }
        }
        if spends.is_empty() {
            self.error(
                spanned,
                "'inject' puts nothing in: name one of bearer, basic, header, query, path, cookie, json, form",
            );
        }
        for (number, (name, style)) in spends.iter().enumerate() {
            let before = spends.iter().take(number).map(|(_, other)| other);
            if let Some(clash) = before.filter_map(|other| clash(other, style)).next() {
                self.error(name, clash);
            }
        }
        let read = |(text, style): (&Text, Style)| Some(Spend { name: self.parse(text)?, style });
        spends.into_iter().filter_map(read).collect()
    }
}

/// Why a request cannot have both; nothing where it can.
pub(crate) fn clash(one: &Style, other: &Style) -> Option<String> {
    let keys = |style: &Style| match style {
        Style::Json(path) => path.keys().map(|keys| keys.into_iter().map(str::to_owned).collect::<Vec<_>>()),
        _ => None,
    };
    if let (Some(one), Some(other)) = (keys(one), keys(other))
        && (one.starts_with(&other) || other.starts_with(&one))
    {
        return Some("two secrets are injected into one value of the JSON body".to_owned());
    }
    let spots = one.spot().zip(other.spot())?;
    match (one, other) {
        (Style::Path(one), Style::Path(other)) => (one.contains(&**other) || other.contains(&**one))
            .then(|| format!("'{one}' and '{other}' overlap in the path")),
        (Style::Json(_), Style::Form(_)) | (Style::Form(_), Style::Json(_)) => {
            Some("a body is JSON or a form, never both".to_owned())
        }
        (Style::Header(name), Style::Cookie(_)) | (Style::Cookie(_), Style::Header(name))
            if name == COOKIE =>
        {
            Some("two secrets are injected into the header 'cookie'".to_owned())
        }
        _ if spots.0 == spots.1 => Some(match spots.0 {
            Spot { place: Place::Auth | Place::Header | Place::Cookie, name } => {
                format!("two secrets are injected into the header '{name}'")
            }
            Spot { place, name } => format!("two secrets are injected into '{}:{name}'", place.as_str()),
        }),
        _ => None,
    }
}

/// Headers that say where a message goes, or where it ends: they are ours to set.
pub(crate) const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that frame the message or name the server are nobody's to set.
pub(crate) fn injectable_header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("'{}' is not a header name", excerpt(text)))?;
    let of_the_body = matches!(name.as_str(), "content-encoding" | "content-type");
    if of_the_body || FRAMING.contains(&name.as_str()) || name.as_str().starts_with("x-as-") {
        return Err(format!("the header '{name}' cannot carry a secret"));
    }
    Ok(name)
}

/// A path of keys in a JSON body.
pub(crate) fn json(text: &str) -> Result<Style, String> {
    let path: JsonPath = text.parse()?;
    if path.keys().is_none() {
        return Err(format!("'{}' leads through an array: a secret is put in by keys alone", excerpt(text)));
    }
    Ok(Style::Json(Arc::new(path)))
}

/// A name that is there.
pub(crate) fn named(what: &str, name: &str) -> Result<Arc<str>, String> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(format!("a {what} needs a name"));
    }
    Ok(name.into())
}

fn literal(text: &str) -> Result<Style, String> {
    let inner = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or_default();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if inner.is_empty() || !inner.chars().all(word) {
        return Err(format!(
            "'{}' does not stand for a part of the path; write it as {{token}}",
            excerpt(text)
        ));
    }
    Ok(Style::Path(text.into()))
}

fn cookie(text: &str) -> Result<Style, String> {
    // A cookie's name is a token, as a header's is.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(format!("'{}' is not a cookie's name", excerpt(text)));
    }
    Ok(Style::Cookie(text.into()))
}
