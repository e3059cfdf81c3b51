//! Text with `{names}` in it, which the time and parts of a request take the places of. It is read once,
//! with the policy, so that a name that nobody fills is an error there and not a wrong signature later.

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// The time, in seconds since 1970.
    Timestamp,
    /// The time, in milliseconds since 1970.
    TimestampMs,
    /// The method.
    Method,
    /// The host, with its port where that is not the scheme's own.
    Host,
    /// The path, still encoded.
    Path,
    /// The query, still encoded, without its question mark.
    Query,
    /// The whole body.
    Body,
    /// The signature.
    Signature,
}

const NAMES: [(&str, Part); 8] = [
    ("timestamp", Part::Timestamp),
    ("timestamp_ms", Part::TimestampMs),
    ("method", Part::Method),
    ("host", Part::Host),
    ("path", Part::Path),
    ("query", Part::Query),
    ("body", Part::Body),
    ("signature", Part::Signature),
];

impl Template {
    /// Reads `text`, where `without` may not stand.
    pub(super) fn read(text: &str, without: &[Part]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("a '{' is not closed")?;
            let known = NAMES.into_iter().filter(|(_, part)| !without.contains(part));
            let part = known.clone().find(|(known, _)| *known == name).map(|(_, part)| part);
            let part = part.ok_or_else(|| {
                let allowed: Vec<String> = known.map(|(name, _)| format!("{{{name}}}")).collect();
                format!(
                    "'{{{}}}' stands for nothing here; allowed are {}",
                    name.escape_debug(),
                    allowed.join(", ")
                )
            })?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Its parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether `part` stands in it.
    pub fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_and_the_rest_stays_text() {
        let read = Template::read("v0:{timestamp}:{body}", &[Part::Signature]).unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(read.parts(), [text("v0:"), Part::Timestamp, text(":"), Part::Body]);
        assert_eq!(Template::read("", &[]).unwrap().parts(), []);
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        assert!(Template::read("{boddy}", &[]).unwrap_err().contains("allowed are {timestamp}"));
        assert!(Template::read("{signature}", &[Part::Signature]).is_err());
        assert_eq!(Template::read("{body", &[]).unwrap_err(), "a '{' is not closed");
    }
}
