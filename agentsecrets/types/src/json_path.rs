//! Paths to values in a JSON document: `a.b` for a key in an object in an object, `a[0]` for an element of an
//! array. A key that contains `.`, `[` or `\` has a `\` before it, so that each path has one spelling.

use std::fmt;
use std::str::FromStr;

use crate::printable::excerpt;

/// The deepest path that is read.
const MAX_DEPTH: usize = 64;

/// A path from the document's root; empty for the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct JsonPath(Vec<Step>);

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl JsonPath {
    /// From its steps.
    pub fn new(steps: Vec<Step>) -> Self {
        Self(steps)
    }

    /// Its steps, from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Its keys, from the root; nothing where it leads through an array, or nowhere.
    pub fn keys(&self) -> Option<Vec<&str>> {
        let keys = self.0.iter().map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Option<Vec<_>>>().filter(|keys| !keys.is_empty())
    }
}

impl FromStr for JsonPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{}' is not a path in a JSON document; write it as a.b or a[0].b", excerpt(text));
        let mut steps = Vec::new();
        let mut rest = text;
        while steps.is_empty() || !rest.is_empty() {
            if let Some(index) = rest.strip_prefix('[') {
                let (index, after) = index.split_once(']').ok_or_else(wrong)?;
                let canonical = index == "0" || !index.starts_with(['0', '+']);
                steps.push(Step::Index(index.parse().ok().filter(|_| canonical).ok_or_else(wrong)?));
                rest = after;
            } else {
                let dotted = if steps.is_empty() { Some(rest) } else { rest.strip_prefix('.') };
                let (key, after) = key(dotted.ok_or_else(wrong)?).ok_or_else(wrong)?;
                steps.push(Step::Key(key));
                rest = after;
            }
            if steps.len() > MAX_DEPTH {
                return Err(wrong());
            }
        }
        Ok(Self(steps))
    }
}

/// The key that `text` begins with, and what follows it.
fn key(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '.' | '[' => return (!key.is_empty()).then_some((key, text.get(at..)?)),
            '\\' => key.push(characters.next()?.1),
            other => key.push(other),
        }
    }
    (!key.is_empty()).then_some((key, ""))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if number > 0 {
                        f.write_str(".")?;
                    }
                    for character in key.chars() {
                        if matches!(character, '.' | '[' | '\\') {
                            f.write_str("\\")?;
                        }
                        write!(f, "{character}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_is_parsed_step_by_step() {
        let path: JsonPath = r"a\.b.c[10].d".parse().unwrap();
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(path, JsonPath(vec![key("a.b"), key("c"), Step::Index(10), key("d")]));
        assert_eq!(path.keys(), None);
        assert_eq!("a.b".parse::<JsonPath>().unwrap().keys(), Some(vec!["a", "b"]));
    }

    #[test]
    fn invalid_path_is_refused() {
        for bad in ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[x]", "a[01]", "a[+1]", "a[0]b", r"a\"] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn path_display_is_unique(steps in prop::collection::vec(
            prop_oneof!["[a.\\[\\]\\\\]{1,4}".prop_map(Step::Key), (0..20usize).prop_map(Step::Index)], 1..5)
        ) {
            let path = JsonPath(steps);
            prop_assert_eq!(path.to_string().parse::<JsonPath>().unwrap(), path);
        }
    }
}
