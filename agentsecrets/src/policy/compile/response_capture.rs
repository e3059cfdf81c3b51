//! Compiles `capture:` and `strip:` entries.

use http::HeaderName;
use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema;
use crate::policy::location::{InjectionPoint, LocationKind, LocationPattern};
use crate::types::name::SecretName;
use crate::types::printable::excerpt;
use crate::types::response_capture::{ResponseCapture, ResponseField};

impl Diagnostics {
    /// The values that `rule` captures and strips, or `None` if it has neither key.
    pub(super) fn response_capture(&mut self, rule: &schema::Rule) -> Option<ResponseCapture> {
        let mut capture = ResponseCapture { captures: Vec::new(), strips: Vec::new() };
        for spanned in &rule.capture {
            let written = &spanned.value;
            let name = self.parse::<SecretName>(&written.name);
            let field = self.response_field(spanned, &written.header, &written.cookie, &written.json);
            if let (Some(name), Some(field)) = (name, field) {
                if capture.captures.iter().any(|(other, _)| *other == field) {
                    self.error(spanned, "this is captured twice");
                }
                capture.captures.push((field, name));
            }
        }
        for spanned in &rule.strip {
            let written = &spanned.value;
            let Some(field) = self.response_field(spanned, &written.header, &written.cookie, &written.json)
            else {
                continue;
            };
            if capture.captures.iter().any(|(other, _)| *other == field) {
                self.error(spanned, "this is captured, which takes it out already");
            }
            capture.strips.push(field);
        }
        (!capture.captures.is_empty() || !capture.strips.is_empty()).then_some(capture)
    }

    fn response_field<T>(
        &mut self,
        at: &Spanned<T>,
        header: &Option<String>,
        cookie: &Option<String>,
        json: &Option<String>,
    ) -> Option<ResponseField> {
        let field = match (header, cookie, json) {
            (Some(header), None, None) => parse_header(header).map(ResponseField::Header),
            (None, Some(cookie), None) => match cookie.parse::<HeaderName>() {
                // A cookie name has the same characters as a header name.
                Ok(_) => Ok(ResponseField::Cookie(cookie.as_str().into())),
                Err(_) => Err(format!("'{}' is not a cookie's name", excerpt(cookie))),
            },
            (None, None, Some(json)) => json.parse().map(ResponseField::Json),
            _ => Err("name one of header, cookie or json".to_owned()),
        };
        self.check(at, field)
    }
}

/// Parses a header name. Headers that frame a response or hold several values cannot be captured or stripped.
fn parse_header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("'{}' is not a header name", excerpt(text)))?;
    let unsupported = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if unsupported.contains(&name.as_str()) {
        return Err(format!("the header '{name}' cannot be taken; of Set-Cookie, name a cookie"));
    }
    Ok(name)
}

/// The location where a value captured from `field` may be sent back: the same cookie or header.
pub(super) fn send_location(field: &ResponseField) -> Option<LocationPattern> {
    match field {
        ResponseField::Cookie(name) => {
            Some(LocationPattern::Exact(InjectionPoint::new(LocationKind::Cookie, name.clone())))
        }
        ResponseField::Header(name) => Some(LocationPattern::Exact(InjectionPoint::header(name))),
        ResponseField::Json(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::Policy;

    fn read(lines: &str) -> Result<Policy, String> {
        let lines: String = lines.lines().map(|line| format!("        {line}\n")).collect();
        let text = format!("version: 1\nagents:\n  - name: a\n    allow:\n      - host: api.x.com\n{lines}");
        Policy::parse(&text, Path::new("p")).map_err(|error| error.to_string())
    }

    #[test]
    fn captured_secret_is_spendable_and_not_stored() {
        let policy = read(
            "secrets: [KEY]\ncapture: [{ cookie: sid, as: SID }, { json: 'a.b[0]', as: TEMP }]\nstrip: [{ header: X-T }]",
        );
        let policy = policy.unwrap();
        let agent = &policy.agents()[0];
        assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["KEY", "SID", "TEMP"]);
        assert_eq!(agent.stored_secrets().iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["KEY"]);
        assert!(agent.rules[0].allows_minting);
    }

    #[test]
    fn mistakes_have_their_line() {
        for (lines, message) in [
            ("capture: [{ cookie: sid }]", "p:6: missing field"),
            ("capture: [{ as: SID }]", "p:6: name one of header, cookie or json"),
            ("capture:\n  - { cookie: a, json: b, as: SID }", "p:7: name one of"),
            ("capture: [{ cookie: 'a b', as: SID }]", "'a b' is not a cookie's name"),
            ("capture: [{ json: 'a..b', as: SID }]", "'a..b' is not a path"),
            ("capture: [{ header: Set-Cookie, as: SID }]", "name a cookie"),
            ("capture: [{ cookie: a, as: X }, { cookie: a, as: Y }]", "captured twice"),
            ("capture: [{ cookie: a, as: X }]\nstrip: [{ cookie: a }]", "p:7: this is captured"),
            ("strip: [{ path: a }]", "p:6: unknown field"),
            ("mint: yes", "p:6"),
            ("tls: passthrough\nstrip: [{ cookie: a }]", "p:6: a passthrough connection is not opened"),
        ] {
            let error = read(lines).unwrap_err();
            assert!(error.contains(message), "{lines}: {error}");
        }
    }
}
