//! An injection: a secret and its location in a request, written `bearer`, `basic`, `header:X-Name`,
//! `query:p`, `body:a.b` or `form:f`. An invalid secret name may be a value sent by mistake, so errors never
//! repeat it.

use crate::policy::access_request::SecretReference;
use crate::policy::injection::InjectionStyle;

/// One secret to inject into a request.
#[derive(Debug, Clone)]
pub(crate) struct Injection {
    /// The reference for the pipeline.
    pub(crate) reference: SecretReference,
}

impl Injection {
    /// Parses `spec`; `key` is the name of the secret.
    pub(crate) fn parse(spec: &str, key: &str) -> Result<Self, String> {
        let (kind, about) = spec.split_once(':').map_or((spec, None), |(kind, about)| (kind, Some(about)));
        Self::new(kind, about, key).map_err(|reason| {
            let shown: String = spec.chars().take(60).flat_map(char::escape_debug).collect();
            format!("'{shown}': {reason}")
        })
    }

    /// The injection of the secret `key` with style `kind`, at the header, parameter or field `about`.
    pub(crate) fn new(kind: &str, about: Option<&str>, key: &str) -> Result<Self, String> {
        let style = InjectionStyle::parse_requested(kind, about)?.ok_or_else(|| {
            "write bearer, basic, header:<Name>, query:<parameter>, body:<a.b> or form:<field>".to_owned()
        })?;
        let name = key.parse().map_err(|_| {
            "it must be given the name of a stored secret (letters, digits and '_'), never a value".to_owned()
        })?;
        Ok(Self { reference: SecretReference { name, style } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_spec_is_refused_without_value() {
        for spec in ["bearer", "basic", "header:X-Api-Key", "query:apiKey", "body:a.b", "form:f"] {
            assert_eq!(Injection::parse(spec, "KEY").unwrap().reference.name.as_str(), "KEY");
        }
        for spec in
            ["", "bearer:x", "header", "header:", "header:Host", "query:", "body:a..b", "token", "Bearer"]
        {
            assert!(Injection::parse(spec, "KEY").is_err(), "{spec}");
        }
        for key in ["", "sk-live-by-mistake", "A B", "1A"] {
            let error = Injection::parse("bearer", key).unwrap_err();
            assert!(!error.contains("mistake"), "{error}");
        }
    }
}
