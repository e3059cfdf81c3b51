//! A secret that is to be put into a request, by the name that says where: `bearer`, `basic`, `header:X-Name`,
//! `query:p`, `body:a.b`, `form:f`. A name of a secret that is none may be a value sent by mistake, and is
//! never repeated.

use crate::policy::access_request::Reference;
use crate::policy::grant::Style;
use crate::policy::inject_rules::{injectable_header, json, named};

/// One secret to be put in.
#[derive(Debug, Clone)]
pub struct Injection {
    /// As the stages take it.
    pub reference: Reference,
    /// What a header that asks for it ends in.
    pub(super) header: String,
}

impl Injection {
    /// Reads a whole `spec`; `key` is the secret's name.
    pub fn read(spec: &str, key: &str) -> Result<Self, String> {
        let (kind, about) = spec.split_once(':').map_or((spec, None), |(kind, about)| (kind, Some(about)));
        Self::new(kind, about, key).map_err(|why| {
            let shown: String = spec.chars().take(60).flat_map(char::escape_debug).collect();
            format!("'{shown}': {why}")
        })
    }

    /// The secret `key` in the manner of `kind`, which may need to know what it is `about`.
    pub fn new(kind: &str, about: Option<&str>, key: &str) -> Result<Self, String> {
        let (style, header) = match (kind, about) {
            ("bearer", None) => (Style::Bearer, "Bearer".to_owned()),
            ("basic", None) => (Style::Basic, "Basic".to_owned()),
            ("header", Some(name)) => (Style::Header(injectable_header(name)?), format!("Header-{name}")),
            ("query", Some(name)) => {
                (named("query parameter", name).map(Style::Query)?, format!("Query-{name}"))
            }
            ("body", Some(path)) => (json(path)?, format!("Body-{}", path.replace('.', "-"))),
            ("form", Some(name)) => (named("form field", name).map(Style::Form)?, format!("Form-{name}")),
            _ => {
                return Err("write bearer, basic, header:<Name>, query:<parameter>, body:<a.b> or \
                            form:<field>"
                    .to_owned());
            }
        };
        let name = key.parse().map_err(|_| {
            "it must be given the name of a stored secret (letters, digits and '_'), never a value".to_owned()
        })?;
        Ok(Self { reference: Reference { name, style }, header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_read_and_what_is_none_is_refused_without_the_value() {
        for spec in ["bearer", "basic", "header:X-Api-Key", "query:apiKey", "body:a.b", "form:f"] {
            assert_eq!(Injection::read(spec, "KEY").unwrap().reference.name.as_str(), "KEY");
        }
        for spec in
            ["", "bearer:x", "header", "header:", "header:Host", "query:", "body:a..b", "token", "Bearer"]
        {
            assert!(Injection::read(spec, "KEY").is_err(), "{spec}");
        }
        for key in ["", "sk-live-by-mistake", "A B", "1A"] {
            let wrong = Injection::read("bearer", key).unwrap_err();
            assert!(!wrong.contains("mistake"), "{wrong}");
        }
    }
}
