//! The `X-AS-Inject-…` headers, which request injections explicitly. They belong to the `/proxy`
//! endpoint, also work on intercepted requests, and never leave. Their values are secret names; an
//! invalid one may be a value sent by mistake and is never echoed.

use http::HeaderMap;

use crate::http::header_case::{HeaderCaseMap, INJECT_PREFIX};
use crate::policy::access_request::SecretReference;
use crate::policy::injection::{InjectionStyle, style_conflict};
use crate::types::rejection::{ErrorCode, Rejection};

/// Injections that the caller of this process requested. Stored in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestedInjections(Vec<SecretReference>);

impl RequestedInjections {
    /// Adds a request. The error says why it conflicts with another.
    pub(crate) fn with(mut self, reference: SecretReference) -> Result<Self, String> {
        if let Some(clash) = self.0.iter().find_map(|other| style_conflict(&other.style, &reference.style)) {
            return Err(clash);
        }
        self.0.push(reference);
        Ok(self)
    }

    /// The requested injections.
    pub(crate) fn references(&self) -> &[SecretReference] {
        &self.0
    }
}

/// Parses the injection headers. The names of parameters and fields take their case from `header_case`.
pub(super) fn requested(
    headers: &HeaderMap,
    header_case: Option<&HeaderCaseMap>,
) -> Result<Vec<SecretReference>, Rejection> {
    let mut references: Vec<SecretReference> = Vec::new();
    for (header, value) in headers {
        let Some(rest) = header.as_str().strip_prefix(INJECT_PREFIX) else { continue };
        let spelled = header_case
            .and_then(|header_case| header_case.get(header))
            .and_then(|name| name.get(INJECT_PREFIX.len()..));
        let style = style(rest, spelled.unwrap_or(rest)).map_err(|why| bad(header.as_str(), &why))?;
        let name = value.to_str().ok().and_then(|value| value.trim().parse().ok());
        let name = name.ok_or_else(|| bad(header.as_str(), "its value must be the name of a secret"))?;
        if let Some(clash) = references.iter().filter_map(|other| style_conflict(&other.style, &style)).next()
        {
            return Err(bad(header.as_str(), &clash));
        }
        references.push(SecretReference { name, style });
    }
    Ok(references)
}

/// Parses the part of the name after the prefix: `rest` in lower case, `spelled` in its original case.
fn style(rest: &str, spelled: &str) -> Result<InjectionStyle, String> {
    let (kind, _) = rest.split_once('-').unwrap_or((rest, ""));
    let name = spelled.get(kind.len() + 1..).unwrap_or_default();
    let name = match kind {
        "bearer" | "basic" if name.is_empty() => None,
        // Header names have no dots.
        "body" => Some(name.replace('-', ".")),
        _ => Some(name.to_owned()),
    };
    InjectionStyle::parse_requested(kind, name.as_deref())?.ok_or_else(|| {
        "there is no such style: write Bearer, Basic, Header-<Name>, Query-<p>, Body-<path> or Form-<f>"
            .to_owned()
    })
}

/// Returns the name of the header that requests `style`, or `None` if no header can. Its case is significant.
pub(crate) fn injection_header(style: &InjectionStyle) -> Option<String> {
    let (kind, name) = style.requested_parts()?;
    Some(match name {
        None => format!("{INJECT_PREFIX}{kind}"),
        Some(path) if kind == "body" => format!("{INJECT_PREFIX}{kind}-{}", path.replace('.', "-")),
        Some(name) => format!("{INJECT_PREFIX}{kind}-{name}"),
    })
}

fn bad(header: &str, why: &str) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, format!("the header {header}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styles(headers: &[(&'static str, &str)], spelled: &[&str]) -> Result<Vec<InjectionStyle>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let header_case = HeaderCaseMap::new(spelled.iter().copied());
        let references = requested(&map, Some(&header_case)).map_err(|rejection| rejection.message)?;
        Ok(references.into_iter().map(|reference| reference.style).collect())
    }

    #[test]
    fn every_injection_header_is_parsed() {
        let json = |path: &str| InjectionStyle::Json(std::sync::Arc::new(path.parse().unwrap()));
        for (header, spelled, style) in [
            ("x-as-inject-bearer", "", InjectionStyle::Bearer),
            ("x-as-inject-basic", "", InjectionStyle::Basic),
            (
                "x-as-inject-header-x-api-key",
                "X-AS-Inject-Header-X-Api-Key",
                InjectionStyle::Header("x-api-key".parse().unwrap()),
            ),
            ("x-as-inject-query-apikey", "X-AS-Inject-Query-apiKey", InjectionStyle::Query("apiKey".into())),
            ("x-as-inject-query-apikey", "", InjectionStyle::Query("apikey".into())),
            (
                "x-as-inject-body-auth-clientsecret",
                "x-as-inject-body-auth-clientSecret",
                json("auth.clientSecret"),
            ),
            ("x-as-inject-form-client_secret", "", InjectionStyle::Form("client_secret".into())),
        ] {
            assert_eq!(injection_header(&style).map(|name| name.to_lowercase()).as_deref(), Some(header));
            assert_eq!(styles(&[(header, "K")], &[spelled]), Ok(vec![style]), "{header}");
        }
    }

    #[test]
    fn invalid_header_is_rejected_without_its_value() {
        for headers in [
            &[("x-as-inject-bearer", "sk_live_value-by-mistake")][..],
            &[("x-as-inject-bearer", "A"), ("x-as-inject-bearer", "B")],
            &[("x-as-inject-bearer", "A"), ("x-as-inject-basic", "B")],
            &[("x-as-inject-bearer", "A"), ("x-as-inject-header-authorization", "B")],
            &[("x-as-inject-body-a", "A"), ("x-as-inject-body-a-b", "B")],
            &[("x-as-inject-body-a", "A"), ("x-as-inject-form-a", "B")],
            &[("x-as-inject-header-host", "A")],
            &[("x-as-inject-header-", "A")],
            &[("x-as-inject-query-", "A")],
            &[("x-as-inject-body-a--b", "A")],
            &[("x-as-inject-token", "A")],
            &[("x-as-inject-bearer-x", "A")],
        ] {
            let refused = styles(headers, &[]).unwrap_err();
            assert!(!refused.contains("mistake"), "{refused}");
        }
    }
}
