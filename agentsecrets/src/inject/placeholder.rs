//! How an agent says a secret that it does not hold: `AS_SECRET_<NAME>`, `{{NAME}}`, or a string that a
//! person chose. It finds these words and fills them; where they may be filled is not decided here.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use zeroize::Zeroizing;

use crate::types::name::SecretName;

const PREFIX: &str = "AS_SECRET_";

/// The placeholders that an agent may use.
pub struct Vocabulary {
    /// Finds the beginnings; nothing where it could not be built, and then no placeholder is known.
    words: Option<Box<AhoCorasick>>,
    /// What each pattern of `words` stands for; nothing for the bare prefix.
    meanings: Vec<Option<SecretName>>,
    /// What an agent is given in place of each secret.
    given: Vec<(SecretName, String)>,
}

/// A placeholder in some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Where it stands.
    pub range: Range<usize>,
    /// The secret that it names. `AS_SECRET_<NAME>` is a mention whether such a secret exists or not, so
    /// that it can be refused.
    pub name: SecretName,
}

/// What was filled in is longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Vocabulary {
    /// The placeholders of these secrets; the second of a pair is a string that stands for it too.
    pub fn new(secrets: impl IntoIterator<Item = (SecretName, Option<String>)>) -> Self {
        let mut words = vec![PREFIX.to_owned()];
        let mut meanings = vec![None];
        let mut given = Vec::new();
        for (name, custom) in secrets {
            words.push(format!("{{{{{name}}}}}"));
            meanings.push(Some(name.clone()));
            let custom = custom.filter(|custom| !custom.is_empty() && custom != PREFIX);
            given.push((name.clone(), custom.clone().unwrap_or_else(|| format!("{PREFIX}{name}"))));
            if let Some(custom) = custom {
                words.push(custom);
                meanings.push(Some(name));
            }
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind((words.len() <= 64).then_some(AhoCorasickKind::DFA))
            .build(&words);
        Self { words: words.ok().map(Box::new), meanings, given }
    }

    /// No placeholder at all: whatever looks like one is text.
    pub fn none() -> Self {
        Self { words: None, meanings: Vec::new(), given: Vec::new() }
    }

    /// Each secret and the placeholder that an agent is given for it: the person's own where there is one.
    pub fn placeholders(&self) -> impl Iterator<Item = (&SecretName, &str)> {
        self.given.iter().map(|(name, placeholder)| (name, placeholder.as_str()))
    }

    /// The mentions in `bytes`, from left to right.
    pub fn mentions<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Mention> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let rest = bytes.get(from..)?;
                let found = self.words.as_ref()?.find(rest)?;
                let start = from + found.start();
                let meaning = self.meanings.get(found.pattern().as_usize())?;
                let custom = meaning.as_ref().and_then(|name| whole(bytes, start..from + found.end(), name));
                if let Some(mention) = custom.or_else(|| prefixed(bytes, start)) {
                    from = mention.range.end;
                    return Some(mention);
                }
                from = start + 1;
            }
        })
    }

    /// `bytes` with every mention filled for which `value` has one, or nothing where it has none. It is an
    /// error if that is longer than `most`: an agent may name a long secret very often.
    pub(super) fn fill<'v>(
        &self,
        bytes: &[u8],
        value: impl Fn(&SecretName) -> Option<&'v [u8]>,
        most: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        let fills: Vec<(Range<usize>, &[u8])> =
            self.mentions(bytes).filter_map(|mention| Some((mention.range, value(&mention.name)?))).collect();
        if fills.is_empty() {
            return Ok(None);
        }
        let mut size = bytes.len();
        for (_, value) in &fills {
            size = size.checked_add(value.len()).filter(|size| *size <= most).ok_or(TooLong)?;
        }
        Ok(Some(splice(bytes, &fills)))
    }
}

/// What stands in the place of a part of some bytes.
pub(super) type Edit = (Range<usize>, Zeroizing<Vec<u8>>);

/// `bytes` with other bytes in the place of these ranges, which come in order.
pub(super) fn splice<V: AsRef<[u8]>>(bytes: &[u8], edits: &[(Range<usize>, V)]) -> Zeroizing<Vec<u8>> {
    // Sized beforehand, so that growing leaves no unwiped copy behind.
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

/// `{{NAME}}` or a chosen string: exactly that, and not the beginning of a longer word.
fn whole(bytes: &[u8], range: Range<usize>, name: &SecretName) -> Option<Mention> {
    let last = bytes.get(range.end.checked_sub(1)?)?;
    let next = bytes.get(range.end);
    let goes_on = is_name(last) && next.is_some_and(is_name);
    (!goes_on).then(|| Mention { range, name: name.clone() })
}

/// `AS_SECRET_` and every name character after it.
fn prefixed(bytes: &[u8], start: usize) -> Option<Mention> {
    let rest = bytes.get(start..)?.strip_prefix(PREFIX.as_bytes())?;
    let length = rest.iter().position(|byte| !is_name(byte)).unwrap_or(rest.len());
    let name = std::str::from_utf8(rest.get(..length)?).ok()?.parse().ok()?;
    Some(Mention { range: start..start + PREFIX.len() + length, name })
}

fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary::new([
            ("A".parse().unwrap(), None),
            ("AB".parse().unwrap(), Some("sk-proj-0000".to_owned())),
        ])
    }

    fn names(text: &str) -> Vec<String> {
        vocabulary().mentions(text.as_bytes()).map(|mention| mention.name.to_string()).collect()
    }

    #[test]
    fn the_three_ways_to_say_a_secret() {
        assert_eq!(names("Bearer AS_SECRET_A"), ["A"]);
        assert_eq!(names("{{AB}}:{{A}}"), ["AB", "A"]);
        assert_eq!(names("key sk-proj-0000."), ["AB"]);
    }

    #[test]
    fn a_lookalike_is_another_secret_or_none() {
        assert_eq!(names("AS_SECRET_AB AS_SECRET_A"), ["AB", "A"]);
        assert_eq!(names("AS_SECRET_ABC"), ["ABC"]);
        assert_eq!(names("sk-proj-00001 sk-proj-000"), Vec::<String>::new());
        assert_eq!(names("{{ABC}} {{ A }} {{A} as_secret_a AS_SECRET_ AS_SECRET_1"), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_name_is_a_mention_so_that_it_can_be_refused() {
        assert_eq!(names("AS_SECRET_NOT_MINE"), ["NOT_MINE"]);
        assert_eq!(names(&format!("AS_SECRET_{}", "A".repeat(129))), Vec::<String>::new());
    }

    #[test]
    fn only_what_has_a_value_is_filled() {
        let fill = |text: &str, most| {
            vocabulary()
                .fill(text.as_bytes(), |name| (name.as_str() == "A").then_some(&b"v"[..]), most)
                .map(|filled| filled.map(|filled| String::from_utf8(filled.to_vec()).unwrap()))
        };
        let filled = fill("<AS_SECRET_A> {{A}} AS_SECRET_AB", 100).unwrap();
        assert_eq!(filled.as_deref(), Some("<v> v AS_SECRET_AB"));
        assert_eq!(fill("AS_SECRET_AB", 100), Ok(None));
        assert_eq!(fill("AS_SECRET_A", 11), Err(TooLong));
    }
}
