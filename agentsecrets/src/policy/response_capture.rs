//! What a rule takes out of answers: values that are kept as secrets, with a placeholder in their place, and
//! fields that are taken off.

use std::sync::Arc;

use http::HeaderName;
use serde_yaml::Spanned;

use crate::types::name::SecretName;

use super::compile::Findings;
use crate::policy::access_request::{Area, Place, Spot};
use crate::policy::schema;
use crate::types::json_path::JsonPath;
use crate::types::printable::excerpt;

/// What is taken out of the answers to one rule's requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Taking {
    /// What is kept, and under which name.
    pub captures: Vec<(Source, SecretName)>,
    /// What is taken off.
    pub strips: Vec<Source>,
}

/// Where in an answer something stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie that is set.
    Cookie(Arc<str>),
    /// A value in a JSON body.
    Json(JsonPath),
}

impl Taking {
    /// The paths in a JSON body, with the name under which what stands there is kept, if it is.
    pub fn in_json(&self) -> impl Iterator<Item = (&JsonPath, Option<&SecretName>)> {
        let captures = self.captures.iter().map(|(source, name)| (source, Some(name)));
        captures.chain(self.strips.iter().map(|source| (source, None))).filter_map(|(source, name)| {
            match source {
                Source::Json(path) => Some((path, name)),
                Source::Header(_) | Source::Cookie(_) => None,
            }
        })
    }
}

impl Findings {
    /// What `rule` takes; nothing where it takes nothing.
    pub(super) fn taking(&mut self, rule: &schema::Rule) -> Option<Taking> {
        let mut taking = Taking { captures: Vec::new(), strips: Vec::new() };
        for spanned in &rule.capture {
            let written = &spanned.value;
            let name = self.parse::<SecretName>(&written.name);
            let source = self.source(spanned, &written.header, &written.cookie, &written.json);
            if let (Some(name), Some(source)) = (name, source) {
                if taking.captures.iter().any(|(other, _)| *other == source) {
                    self.error(spanned, "this is captured twice");
                }
                taking.captures.push((source, name));
            }
        }
        for spanned in &rule.strip {
            let written = &spanned.value;
            let Some(source) = self.source(spanned, &written.header, &written.cookie, &written.json) else {
                continue;
            };
            if taking.captures.iter().any(|(other, _)| *other == source) {
                self.error(spanned, "this is captured, which takes it out already");
            }
            taking.strips.push(source);
        }
        (!taking.captures.is_empty() || !taking.strips.is_empty()).then_some(taking)
    }

    fn source<T>(
        &mut self,
        at: &Spanned<T>,
        header: &Option<String>,
        cookie: &Option<String>,
        json: &Option<String>,
    ) -> Option<Source> {
        let read = match (header, cookie, json) {
            (Some(header), None, None) => readable_header(header).map(Source::Header),
            (None, Some(cookie), None) => match cookie.parse::<HeaderName>() {
                // A cookie's name has the characters of a header's.
                Ok(_) => Ok(Source::Cookie(cookie.as_str().into())),
                Err(_) => Err(format!("'{}' is not a cookie's name", excerpt(cookie))),
            },
            (None, None, Some(json)) => json.parse().map(Source::Json),
            _ => Err("name one of header, cookie or json".to_owned()),
        };
        self.keep(at, read)
    }
}

/// Headers that frame an answer, or hold many things, are not to be taken.
fn readable_header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("'{}' is not a header name", excerpt(text)))?;
    let others = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if others.contains(&name.as_str()) {
        return Err(format!("the header '{name}' cannot be taken; of Set-Cookie, name a cookie"));
    }
    Ok(name)
}

/// Where what was taken from `source` goes again: the same cookie or header, at least.
pub(super) fn area(source: &Source) -> Option<Area> {
    match source {
        Source::Cookie(name) => Some(Area::Only(Spot::new(Place::Cookie, name.clone()))),
        Source::Header(name) => Some(Area::Only(Spot::header(name))),
        Source::Json(_) => None,
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
    fn what_is_captured_is_the_agents_to_spend_and_is_not_looked_for_in_stores() {
        let policy = read(
            "secrets: [KEY]\ncapture: [{ cookie: sid, as: SID }, { json: 'a.b[0]', as: TEMP }]\nstrip: [{ header: X-T }]",
        );
        let policy = policy.unwrap();
        let agent = &policy.agents()[0];
        assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["KEY", "SID", "TEMP"]);
        assert_eq!(agent.stored().iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["KEY"]);
        assert!(agent.rules[0].mint);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (lines, told) in [
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
            assert!(error.contains(told), "{lines}: {error}");
        }
    }
}
