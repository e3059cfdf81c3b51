//! Secrets in a JSON document. serde_json validates it and converts its strings; this module only walks
//! it, so that everything that is not filled keeps its bytes: keys, their order, numbers, white space.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::inject::injector::Injector;
use crate::inject::placeholder::{Edit, splice};
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::json_path::{JsonPath, Step};
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Maximum nesting depth.
const MAX_DEPTH: usize = 256;

/// Location of a string value.
pub(in crate::inject) struct StringPosition<'w> {
    text: &'w str,
    stack: &'w [Frame],
    range: Range<usize>,
}

/// An open object or array.
enum Frame {
    /// The key of the next value, quotes included, and whether that key is still expected.
    Object { key: Range<usize>, expects_key: bool },
    /// Index of the element.
    Array(usize),
}

impl StringPosition<'_> {
    /// Returns the path in a policy's notation.
    pub(super) fn path(&self) -> String {
        let steps = self.stack.iter().map(|frame| match frame {
            Frame::Array(index) => Step::Index(*index),
            Frame::Object { key, .. } => {
                Step::Key(decode_string(self.text, key).map(Cow::into_owned).unwrap_or_default())
            }
        });
        JsonPath::new(steps.collect()).to_string()
    }
}

/// Validates a document, including its strings. The error says why it is not JSON.
pub(in crate::inject) fn validate(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| "it is not JSON")?;
    walk(text, |_, token| match token {
        Token::StringValue(range) | Token::Key(range) => {
            decode_string(text, &range).map(drop).ok_or("it contains an invalid string")
        }
        Token::Start | Token::End => Ok(()),
    })?;
    Ok(text)
}

/// Visits every string value of a valid document.
pub(super) fn for_each_string<E>(
    text: &str,
    mut each: impl FnMut(&StringPosition<'_>, &str) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = Ok(());
    // A valid document can be walked.
    let _ = walk(text, |stack, token| {
        let Token::StringValue(range) = token else { return Ok(()) };
        let Some(value) = decode_string(text, &range) else { return Ok(()) };
        let at = StringPosition { text, stack, range };
        failed = each(&at, &value);
        if failed.is_ok() { Ok(()) } else { Err("") }
    });
    failed
}

/// Visits every key of a valid document.
pub(super) fn for_each_key(text: &str, mut each: impl FnMut(&str)) {
    // A valid document can be walked.
    let _ = walk(text, |_, token| {
        if let Token::Key(range) = token {
            decode_string(text, &range).iter().for_each(|key| each(key));
        }
        Ok(())
    });
}

/// Replaces the strings for which `each` returns a new one; `None` if there are none.
pub(in crate::inject) fn replace_strings<E>(
    text: &str,
    mut each: impl FnMut(&StringPosition<'_>, &str) -> Result<Option<Zeroizing<Vec<u8>>>, E>,
) -> Result<Option<Zeroizing<Vec<u8>>>, E> {
    let mut edits: Vec<Edit> = Vec::new();
    for_each_string(text, |at, value| {
        edits.extend(each(at, value)?.map(|new| (at.range.clone(), new)));
        Ok(())
    })?;
    Ok((!edits.is_empty()).then(|| splice(text.as_bytes(), &edits)))
}

/// Fills the granted placeholders; `None` if there are none.
pub(super) fn fill(text: &str, injector: &Injector<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let filled = replace_strings(text, |at, value| {
        let filled =
            injector.fill(value.as_bytes(), || InjectionPoint::new(LocationKind::Json, at.path()))?;
        filled.map(|filled| encode_secret(&filled.name, &filled.bytes, injector)).transpose()
    })?;
    let same =
        |filled: &[u8]| validate(filled).is_ok_and(|filled| count_tokens(filled) == count_tokens(text));
    if filled.as_ref().is_some_and(|filled| !same(filled)) {
        return Err(injector.bad_request("filling in a secret would change the structure of the JSON body"));
    }
    Ok(filled)
}

/// Inserts the secret `name` as a string at the path `keys`. Missing objects are created; other values on
/// the way are never replaced.
pub(super) fn insert_secret(
    text: &str,
    keys: &[&str],
    name: &SecretName,
    injector: &Injector<'_>,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    let value = encode_secret(name, injector.value(name)?.expose(), injector)?;
    insert_at_path(text.trim_matches([' ', '\t', '\r', '\n']), keys, 0, &value)
        .map_err(|error| injector.bad_request(error))
}

/// Rejects a document with a duplicate key in one object: parsers disagree on which counts.
pub(super) fn reject_duplicate_keys(text: &str, injector: &Injector<'_>) -> Result<(), Rejection> {
    let mut objects: Vec<HashSet<Cow<'_, str>>> = Vec::new();
    let walked = walk(text, |_, token| {
        match token {
            Token::Start => objects.push(HashSet::new()),
            Token::End => drop(objects.pop()),
            Token::Key(range) => {
                let key = decode_string(text, &range).ok_or("it contains an invalid string")?;
                if objects.last_mut().is_some_and(|keys| !keys.insert(key)) {
                    return Err("a key stands twice in one object of the JSON body: send it once");
                }
            }
            Token::StringValue(_) => {}
        }
        Ok(())
    });
    walked.map_err(|why| injector.bad_request(why))
}

/// Encodes bytes as a JSON string with quotes; `None` if they are not text.
pub(in crate::inject) fn encode_string(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    // The longest escape has six bytes.
    let mut quoted = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_mul(6) + 2));
    serde_json::to_writer(&mut *quoted, text).ok()?;
    Some(quoted)
}

fn encode_secret(
    name: &SecretName,
    bytes: &[u8],
    injector: &Injector<'_>,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    encode_string(bytes).ok_or_else(|| injector.invalid_value(name, "JSON"))
}

/// Counts keys, strings, objects and arrays, which filling must not change.
fn count_tokens(text: &str) -> (usize, usize, usize) {
    let (mut keys, mut values, mut opened) = (0, 0, 0);
    // A valid document can be walked.
    let _ = walk(text, |_, token| {
        match token {
            Token::Key(_) => keys += 1,
            Token::StringValue(_) => values += 1,
            Token::Start => opened += 1,
            Token::End => {}
        }
        Ok(())
    });
    (keys, values, opened)
}

/// Inserts `value` into the object `text` at the path `keys`, of which the first `depth` keys led here.
fn insert_at_path(
    text: &str,
    keys: &[&str],
    depth: usize,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, String> {
    let parents = || keys.get(..depth).unwrap_or_default().join(".");
    let location =
        || if depth == 0 { "the JSON body".to_owned() } else { format!("'{}' in the JSON body", parents()) };
    let is = match text.as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') => Some("an array"),
        Some(b'"') => Some("a string"),
        _ => Some("no object"),
    };
    if let Some(is) = is {
        let path = keys.join(".");
        return Err(format!(
            "{} is {is}, and the rule puts a secret at '{path}': send an object there",
            location()
        ));
    }
    let Some((key, rest)) = keys.get(depth..).and_then(<[&str]>::split_first) else {
        return Err("the path in the JSON body is empty".to_owned());
    };
    let Members(members) = serde_json::from_str(text).map_err(|_| "the body is not JSON".to_owned())?;
    let mut named = members.iter().filter(|(known, _)| known == key).map(|(_, value)| value.get());
    if let Some(member) = named.next() {
        let start = (member.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let range = start..start + member.len();
        let new = if rest.is_empty() {
            Zeroizing::new(value.to_vec())
        } else {
            insert_at_path(member, keys, depth + 1, value)?
        };
        return Ok(splice(text.as_bytes(), &[(range, new)]));
    }
    // Add a member before the closing brace.
    let mut member = String::from(if members.is_empty() { "" } else { "," });
    let name = |key: &str| serde_json::to_string(key).unwrap_or_default();
    member.push_str(&name(key));
    member.push(':');
    for key in rest {
        member.push('{');
        member.push_str(&name(key));
        member.push(':');
    }
    let mut new = Zeroizing::new(Vec::with_capacity(member.len() + value.len() + rest.len()));
    new.extend_from_slice(member.as_bytes());
    new.extend_from_slice(value);
    new.extend(std::iter::repeat_n(b'}', rest.len()));
    let end = text.len() - 1;
    Ok(splice(text.as_bytes(), &[(end..end, new)]))
}

/// Members of an object, in order, as they stand in the text.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Event of a walk.
enum Token {
    /// A key, quotes included.
    Key(Range<usize>),
    /// A string value, quotes included.
    StringValue(Range<usize>),
    /// Start of an object or array.
    Start,
    /// End of an object or array.
    End,
}

/// Walks a valid document until `each` fails.
fn walk(
    text: &str,
    mut each: impl FnMut(&[Frame], Token) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let mut stack: Vec<Frame> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                stack.push(match byte {
                    b'{' => Frame::Object { key: 0..0, expects_key: true },
                    _ => Frame::Array(0),
                });
                if stack.len() > MAX_DEPTH {
                    return Err("it is nested too deeply");
                }
                each(&stack, Token::Start)?;
            }
            b'}' | b']' => {
                stack.pop();
                each(&stack, Token::End)?;
            }
            b',' => match stack.last_mut() {
                Some(Frame::Object { expects_key: wants_key, .. }) => *wants_key = true,
                Some(Frame::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let range = at..end_of_string(bytes, at);
                at = range.end;
                match stack.last_mut() {
                    Some(Frame::Object { key, expects_key: wants_key @ true }) => {
                        *key = range.clone();
                        *wants_key = false;
                        each(&stack, Token::Key(range))?;
                    }
                    _ => each(&stack, Token::StringValue(range))?,
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Returns the offset after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Decodes the string at `range`, quotes included.
fn decode_string<'t>(text: &'t str, range: &Range<usize>) -> Option<Cow<'t, str>> {
    let quoted = text.get(range.clone())?;
    let plain = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        serde_json::from_str::<String>(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(plain))
    }
}
