//! Placeholders: the strings by which an agent names a secret, `AS_SECRET_<NAME>`, `{{NAME}}` or a custom
//! one. Finds and fills them; whether one may be filled is not decided here.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use zeroize::Zeroizing;

use crate::types::name::SecretName;

const PREFIX: &str = "AS_SECRET_";

/// The placeholders of an agent.
pub struct Placeholders {
    /// Finds candidates. If it could not be built, no placeholder is recognised.
    automaton: Option<Box<AhoCorasick>>,
    /// The secret of each pattern; `None` for the bare prefix.
    pattern_names: Vec<Option<SecretName>>,
    /// The placeholder that the agent is given for each secret.
    placeholders: Vec<(SecretName, String)>,
}

/// A placeholder found in some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceholderMatch {
    /// Its position.
    pub range: Range<usize>,
    /// The secret that it names. `AS_SECRET_<NAME>` matches even if no such secret exists, so that it can
    /// be rejected.
    pub name: SecretName,
}

/// The filled text exceeds its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FilledTooLarge;

impl Placeholders {
    /// Creates the placeholders of these secrets, each with its custom placeholder, if any.
    pub fn new(secrets: impl IntoIterator<Item = (SecretName, Option<String>)>) -> Self {
        let mut words = vec![PREFIX.to_owned()];
        let mut pattern_names = vec![None];
        let mut placeholders = Vec::new();
        for (name, custom) in secrets {
            words.push(format!("{{{{{name}}}}}"));
            pattern_names.push(Some(name.clone()));
            let custom = custom.filter(|custom| !custom.is_empty() && custom != PREFIX);
            placeholders.push((name.clone(), custom.clone().unwrap_or_else(|| format!("{PREFIX}{name}"))));
            if let Some(custom) = custom {
                words.push(custom);
                pattern_names.push(Some(name));
            }
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind((words.len() <= 64).then_some(AhoCorasickKind::DFA))
            .build(&words);
        Self { automaton: words.ok().map(Box::new), pattern_names, placeholders }
    }

    /// Recognises no placeholder.
    pub fn empty() -> Self {
        Self { automaton: None, pattern_names: Vec::new(), placeholders: Vec::new() }
    }

    /// Each secret with the placeholder that the agent is given: the custom one if set.
    pub fn placeholders(&self) -> impl Iterator<Item = (&SecretName, &str)> {
        self.placeholders.iter().map(|(name, placeholder)| (name, placeholder.as_str()))
    }

    /// Finds the placeholders in `bytes`, from left to right.
    pub fn find_iter<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = PlaceholderMatch> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let rest = bytes.get(from..)?;
                let found = self.automaton.as_ref()?.find(rest)?;
                let start = from + found.start();
                let meaning = self.pattern_names.get(found.pattern().as_usize())?;
                let custom =
                    meaning.as_ref().and_then(|name| exact_match(bytes, start..from + found.end(), name));
                if let Some(matched) = custom.or_else(|| prefix_match(bytes, start)) {
                    from = matched.range.end;
                    return Some(matched);
                }
                from = start + 1;
            }
        })
    }

    /// Fills every placeholder for which `value` returns bytes; `None` if there are none. Fails if the
    /// result exceeds `max_size`, because an agent may repeat a long secret many times.
    pub(super) fn fill<'v>(
        &self,
        bytes: &[u8],
        value: impl Fn(&SecretName) -> Option<&'v [u8]>,
        max_size: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, FilledTooLarge> {
        let fills: Vec<(Range<usize>, &[u8])> = self
            .find_iter(bytes)
            .filter_map(|matched| Some((matched.range, value(&matched.name)?)))
            .collect();
        if fills.is_empty() {
            return Ok(None);
        }
        let mut size = bytes.len();
        for (_, value) in &fills {
            size = size.checked_add(value.len()).filter(|size| *size <= max_size).ok_or(FilledTooLarge)?;
        }
        Ok(Some(splice(bytes, &fills)))
    }
}

/// A range and the bytes that replace it.
pub(super) type Edit = (Range<usize>, Zeroizing<Vec<u8>>);

/// Replaces these ranges, which must be in order.
pub(super) fn splice<V: AsRef<[u8]>>(bytes: &[u8], edits: &[(Range<usize>, V)]) -> Zeroizing<Vec<u8>> {
    // Sized in advance, so that growing leaves no unwiped copy behind.
    let size = bytes.len() + edits.iter().map(|(_, value)| value.as_ref().len()).sum::<usize>();
    let mut spliced = Zeroizing::new(Vec::with_capacity(size));
    let mut at = 0;
    for (range, value) in edits {
        spliced.extend_from_slice(bytes.get(at..range.start).unwrap_or_default());
        spliced.extend_from_slice(value.as_ref());
        at = range.end;
    }
    spliced.extend_from_slice(bytes.get(at..).unwrap_or_default());
    spliced
}

/// Matches `{{NAME}}` or a custom placeholder, unless it begins a longer word.
fn exact_match(bytes: &[u8], range: Range<usize>, name: &SecretName) -> Option<PlaceholderMatch> {
    let last = bytes.get(range.end.checked_sub(1)?)?;
    let next = bytes.get(range.end);
    let goes_on = is_name_byte(last) && next.is_some_and(is_name_byte);
    (!goes_on).then(|| PlaceholderMatch { range, name: name.clone() })
}

/// Matches `AS_SECRET_` and all name characters after it.
fn prefix_match(bytes: &[u8], start: usize) -> Option<PlaceholderMatch> {
    let rest = bytes.get(start..)?.strip_prefix(PREFIX.as_bytes())?;
    let length = rest.iter().position(|byte| !is_name_byte(byte)).unwrap_or(rest.len());
    let name = std::str::from_utf8(rest.get(..length)?).ok()?.parse().ok()?;
    Some(PlaceholderMatch { range: start..start + PREFIX.len() + length, name })
}

fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders() -> Placeholders {
        Placeholders::new([
            ("A".parse().unwrap(), None),
            ("AB".parse().unwrap(), Some("sk-proj-0000".to_owned())),
        ])
    }

    fn names(text: &str) -> Vec<String> {
        placeholders().find_iter(text.as_bytes()).map(|matched| matched.name.to_string()).collect()
    }

    #[test]
    fn all_three_forms_are_found() {
        assert_eq!(names("Bearer AS_SECRET_A"), ["A"]);
        assert_eq!(names("{{AB}}:{{A}}"), ["AB", "A"]);
        assert_eq!(names("key sk-proj-0000."), ["AB"]);
    }

    #[test]
    fn lookalike_is_another_secret_or_none() {
        assert_eq!(names("AS_SECRET_AB AS_SECRET_A"), ["AB", "A"]);
        assert_eq!(names("AS_SECRET_ABC"), ["ABC"]);
        assert_eq!(names("sk-proj-00001 sk-proj-000"), Vec::<String>::new());
        assert_eq!(names("{{ABC}} {{ A }} {{A} as_secret_a AS_SECRET_ AS_SECRET_1"), Vec::<String>::new());
    }

    #[test]
    fn unknown_name_is_found() {
        assert_eq!(names("AS_SECRET_NOT_MINE"), ["NOT_MINE"]);
        assert_eq!(names(&format!("AS_SECRET_{}", "A".repeat(129))), Vec::<String>::new());
    }

    #[test]
    fn placeholder_without_a_value_stays() {
        let fill = |text: &str, max_size| {
            placeholders()
                .fill(text.as_bytes(), |name| (name.as_str() == "A").then_some(&b"v"[..]), max_size)
                .map(|filled| filled.map(|filled| String::from_utf8(filled.to_vec()).unwrap()))
        };
        let filled = fill("<AS_SECRET_A> {{A}} AS_SECRET_AB", 100).unwrap();
        assert_eq!(filled.as_deref(), Some("<v> v AS_SECRET_AB"));
        assert_eq!(fill("AS_SECRET_AB", 100), Ok(None));
        assert_eq!(fill("AS_SECRET_A", 11), Err(FilledTooLarge));
    }
}
