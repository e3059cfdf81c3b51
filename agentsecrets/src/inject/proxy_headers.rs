//! The headers by which a request says outright which secret goes where: `X-AS-Inject-…`. They are the
//! explicit endpoint's, work on intercepted requests too, and never leave us. Their values are names of
//! secrets; one that is not may be a value sent by mistake, so that it is never repeated.

use http::HeaderMap;

use crate::http::header_case::Spelling;
use crate::policy::access_request::Reference;
use crate::policy::grant::Style;
use crate::policy::inject_rules::{clash, injectable_header, json, named};
use crate::types::rejection::{ErrorCode, Rejection};

const PREFIX: &str = "x-as-inject-";

/// What is asked for beside the request, by whoever made it: it travels with it, in its extensions.
#[derive(Debug, Clone, Default)]
pub struct Asked(Vec<Reference>);

impl Asked {
    /// Asks for one more; an error says why it cannot go with the others.
    pub fn and(mut self, reference: Reference) -> Result<Self, String> {
        if let Some(clash) = self.0.iter().find_map(|other| clash(&other.style, &reference.style)) {
            return Err(clash);
        }
        self.0.push(reference);
        Ok(self)
    }

    /// All of it.
    pub fn references(&self) -> &[Reference] {
        &self.0
    }
}

/// What the headers ask for. Names of parameters and fields are those of `spelling` where it knows them.
pub(super) fn asked(headers: &HeaderMap, spelling: Option<&Spelling>) -> Result<Vec<Reference>, Rejection> {
    let mut references: Vec<Reference> = Vec::new();
    for (header, value) in headers {
        let Some(rest) = header.as_str().strip_prefix(PREFIX) else { continue };
        let spelled =
            spelling.and_then(|spelling| spelling.of(header)).and_then(|name| name.get(PREFIX.len()..));
        let style = style(rest, spelled.unwrap_or(rest)).map_err(|why| bad(header.as_str(), &why))?;
        let name = value.to_str().ok().and_then(|value| value.trim().parse().ok());
        let name = name.ok_or_else(|| bad(header.as_str(), "its value must be the name of a secret"))?;
        if let Some(clash) = references.iter().filter_map(|other| clash(&other.style, &style)).next() {
            return Err(bad(header.as_str(), &clash));
        }
        references.push(Reference { name, style });
    }
    Ok(references)
}

/// The style that `rest`, in lower case, names; what it is about is taken from `spelled`.
fn style(rest: &str, spelled: &str) -> Result<Style, String> {
    let (kind, _) = rest.split_once('-').unwrap_or((rest, ""));
    let about = spelled.get(kind.len() + 1..).unwrap_or_default();
    match (kind, about) {
        ("bearer", "") => Ok(Style::Bearer),
        ("basic", "") => Ok(Style::Basic),
        ("header", name) => injectable_header(name).map(Style::Header),
        ("query", name) => named("query parameter", name).map(Style::Query),
        // Header names have no dots.
        ("body", path) => json(&path.replace('-', ".")),
        ("form", name) => named("form field", name).map(Style::Form),
        _ => Err(
            "there is no such style: write Bearer, Basic, Header-<Name>, Query-<p>, Body-<path> or Form-<f>"
                .to_owned(),
        ),
    }
}

fn bad(header: &str, why: &str) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, "", format!("the header {header}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styles(headers: &[(&'static str, &str)], spelled: &[&str]) -> Result<Vec<Style>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let spelling = Spelling::new(spelled.iter().copied());
        let references = asked(&map, Some(&spelling)).map_err(|refusal| refusal.message)?;
        Ok(references.into_iter().map(|reference| reference.style).collect())
    }

    #[test]
    fn every_style_of_the_endpoint_is_known() {
        let json = |path: &str| Style::Json(std::sync::Arc::new(path.parse().unwrap()));
        for (header, spelled, style) in [
            ("x-as-inject-bearer", "", Style::Bearer),
            ("x-as-inject-basic", "", Style::Basic),
            (
                "x-as-inject-header-x-api-key",
                "X-AS-Inject-Header-X-Api-Key",
                Style::Header("x-api-key".parse().unwrap()),
            ),
            ("x-as-inject-query-apikey", "X-AS-Inject-Query-apiKey", Style::Query("apiKey".into())),
            ("x-as-inject-query-apikey", "", Style::Query("apikey".into())),
            (
                "x-as-inject-body-auth-clientsecret",
                "x-as-inject-body-auth-clientSecret",
                json("auth.clientSecret"),
            ),
            ("x-as-inject-form-client_secret", "", Style::Form("client_secret".into())),
        ] {
            assert_eq!(styles(&[(header, "K")], &[spelled]), Ok(vec![style]), "{header}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_and_a_value_is_never_repeated() {
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
