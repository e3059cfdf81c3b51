//! Templates with `{names}` that are replaced by the time and parts of a request. They are parsed with the
//! policy, so that an unknown name is an error in the file and not a wrong signature later.

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<TemplatePart>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
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
    /// The query, still encoded, forbidden its question mark.
    Query,
    /// The whole body.
    Body,
    /// The signature.
    Signature,
}

const NAMES: [(&str, TemplatePart); 8] = [
    ("timestamp", TemplatePart::Timestamp),
    ("timestamp_ms", TemplatePart::TimestampMs),
    ("method", TemplatePart::Method),
    ("host", TemplatePart::Host),
    ("path", TemplatePart::Path),
    ("query", TemplatePart::Query),
    ("body", TemplatePart::Body),
    ("signature", TemplatePart::Signature),
];

impl Template {
    /// Parses `text`. The parts in `forbidden` are errors.
    pub(super) fn parse(text: &str, forbidden: &[TemplatePart]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("a '{' is not closed")?;
            let known = NAMES.into_iter().filter(|(_, part)| !forbidden.contains(part));
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
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[TemplatePart] {
        &self.0
    }

    /// Whether it contains `part`.
    pub fn contains(&self, part: &TemplatePart) -> bool {
        self.0.contains(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts() {
        let read = Template::parse("v0:{timestamp}:{body}", &[TemplatePart::Signature]).unwrap();
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        assert_eq!(read.parts(), [text("v0:"), TemplatePart::Timestamp, text(":"), TemplatePart::Body]);
        assert_eq!(Template::parse("", &[]).unwrap().parts(), []);
    }

    #[test]
    fn unknown_name_is_refused() {
        assert!(Template::parse("{boddy}", &[]).unwrap_err().contains("allowed are {timestamp}"));
        assert!(Template::parse("{signature}", &[TemplatePart::Signature]).is_err());
        assert_eq!(Template::parse("{body", &[]).unwrap_err(), "a '{' is not closed");
    }
}
