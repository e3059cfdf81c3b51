//! Secrets in a JSON document. The library says whether it is one, and reads and writes its strings; here
//! it is only walked along, so that whatever is not filled in keeps its very bytes: keys, their order,
//! numbers, white space.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::inject::injector::Spender;
use crate::inject::placeholder::{Edit, splice};
use crate::policy::access_request::{Place, Spot};
use crate::types::json_path::{JsonPath, Step};
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// The deepest document that is read.
const DEEPEST: usize = 256;

/// Where a string value stands.
pub(in crate::inject) struct At<'w> {
    text: &'w str,
    stack: &'w [Frame],
    range: Range<usize>,
}

/// An object or array that is open.
enum Frame {
    /// The key of the value that comes, quotes included, and whether that key is still to come.
    Object { key: Range<usize>, wants_key: bool },
    /// The number of the element.
    Array(usize),
}

impl At<'_> {
    /// The path, as a policy writes it.
    pub(super) fn path(&self) -> String {
        let steps = self.stack.iter().map(|frame| match frame {
            Frame::Array(index) => Step::Index(*index),
            Frame::Object { key, .. } => {
                Step::Key(string(self.text, key).map(Cow::into_owned).unwrap_or_default())
            }
        });
        JsonPath::new(steps.collect()).to_string()
    }
}

/// The document in `bytes`, or why it is none. Its strings can all be read.
pub(in crate::inject) fn check(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| "it is not JSON")?;
    walk(text, |_, token| match token {
        Token::Text(range) | Token::Key(range) => {
            string(text, &range).map(drop).ok_or("a string in it is none")
        }
        Token::Open | Token::Close => Ok(()),
    })?;
    Ok(text)
}

/// Every string value of a document that was checked.
pub(super) fn strings<E>(text: &str, mut each: impl FnMut(&At<'_>, &str) -> Result<(), E>) -> Result<(), E> {
    let mut failed = Ok(());
    // What was checked can be walked.
    let _ = walk(text, |stack, token| {
        let Token::Text(range) = token else { return Ok(()) };
        let Some(value) = string(text, &range) else { return Ok(()) };
        let at = At { text, stack, range };
        failed = each(&at, &value);
        if failed.is_ok() { Ok(()) } else { Err("") }
    });
    failed
}

/// Every key of a document that was checked.
pub(super) fn keys(text: &str, mut each: impl FnMut(&str)) {
    // What was checked can be walked.
    let _ = walk(text, |_, token| {
        if let Token::Key(range) = token {
            string(text, &range).iter().for_each(|key| each(key));
        }
        Ok(())
    });
}

/// The document with other strings where `each` gives some, or nothing if it gives none.
pub(in crate::inject) fn with<E>(
    text: &str,
    mut each: impl FnMut(&At<'_>, &str) -> Result<Option<Zeroizing<Vec<u8>>>, E>,
) -> Result<Option<Zeroizing<Vec<u8>>>, E> {
    let mut edits: Vec<Edit> = Vec::new();
    strings(text, |at, value| {
        edits.extend(each(at, value)?.map(|new| (at.range.clone(), new)));
        Ok(())
    })?;
    Ok((!edits.is_empty()).then(|| splice(text.as_bytes(), &edits)))
}

/// The document with the placeholders filled that may be, or nothing if there are none.
pub(super) fn fill(text: &str, spender: &Spender<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let filled = with(text, |at, value| {
        let filled = spender.fill(value.as_bytes(), || Spot::new(Place::Json, at.path()))?;
        filled.map(|filled| fitting(&filled.name, &filled.bytes, spender)).transpose()
    })?;
    let same = |filled: &[u8]| check(filled).is_ok_and(|filled| shape(filled) == shape(text));
    if filled.as_ref().is_some_and(|filled| !same(filled)) {
        return Err(spender.bad("filling in a secret would make the JSON body another document"));
    }
    Ok(filled)
}

/// The document with the secret `name` as the string at the end of `keys`. Objects on the way are made
/// where there are none; what is no object is never replaced.
pub(super) fn put(
    text: &str,
    keys: &[&str],
    name: &SecretName,
    spender: &Spender<'_>,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    let value = fitting(name, spender.value(name)?.expose(), spender)?;
    set(text.trim_matches([' ', '\t', '\r', '\n']), keys, 0, &value).map_err(|error| spender.bad(error))
}

/// Refuses a document in which a key stands twice in one object: its readers disagree on which counts.
pub(super) fn unambiguous(text: &str, spender: &Spender<'_>) -> Result<(), Rejection> {
    let mut objects: Vec<HashSet<Cow<'_, str>>> = Vec::new();
    let walked = walk(text, |_, token| {
        match token {
            Token::Open => objects.push(HashSet::new()),
            Token::Close => drop(objects.pop()),
            Token::Key(range) => {
                let key = string(text, &range).ok_or("a string in it is none")?;
                if objects.last_mut().is_some_and(|keys| !keys.insert(key)) {
                    return Err("a key stands twice in one object of the JSON body: send it once");
                }
            }
            Token::Text(_) => {}
        }
        Ok(())
    });
    walked.map_err(|why| spender.bad(why))
}

/// Bytes as a JSON string, quotes included; nothing if they are no text.
pub(in crate::inject) fn quoted(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    // The longest escape has six bytes.
    let mut quoted = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_mul(6) + 2));
    serde_json::to_writer(&mut *quoted, text).ok()?;
    Some(quoted)
}

fn fitting(name: &SecretName, bytes: &[u8], spender: &Spender<'_>) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    quoted(bytes).ok_or_else(|| spender.unfit(name, "JSON"))
}

/// What must be the same before and after: how many keys, strings, objects and arrays there are.
fn shape(text: &str) -> (usize, usize, usize) {
    let (mut keys, mut values, mut opened) = (0, 0, 0);
    // What was checked can be walked.
    let _ = walk(text, |_, token| {
        match token {
            Token::Key(_) => keys += 1,
            Token::Text(_) => values += 1,
            Token::Open => opened += 1,
            Token::Close => {}
        }
        Ok(())
    });
    (keys, values, opened)
}

/// `text`, an object without blanks around it, with `value` at the end of `keys`, of which `depth` led here.
fn set(text: &str, keys: &[&str], depth: usize, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let parents = || keys.get(..depth).unwrap_or_default().join(".");
    let place =
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
            place()
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
            set(member, keys, depth + 1, value)?
        };
        return Ok(splice(text.as_bytes(), &[(range, new)]));
    }
    // A new member, before the brace that closes the object.
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

/// An object's members, in order, as they stand in the text.
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

/// What a walk comes by.
enum Token {
    /// A key, quotes included.
    Key(Range<usize>),
    /// A string value, quotes included.
    Text(Range<usize>),
    /// An object begins, or an array.
    Open,
    /// It ends.
    Close,
}

/// Goes along a document that the library took for one, and breaks off where `each` does.
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
                    b'{' => Frame::Object { key: 0..0, wants_key: true },
                    _ => Frame::Array(0),
                });
                if stack.len() > DEEPEST {
                    return Err("it is nested too deeply");
                }
                each(&stack, Token::Open)?;
            }
            b'}' | b']' => {
                stack.pop();
                each(&stack, Token::Close)?;
            }
            b',' => match stack.last_mut() {
                Some(Frame::Object { wants_key, .. }) => *wants_key = true,
                Some(Frame::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let range = at..end_of_string(bytes, at);
                at = range.end;
                match stack.last_mut() {
                    Some(Frame::Object { key, wants_key: wants_key @ true }) => {
                        *key = range.clone();
                        *wants_key = false;
                        each(&stack, Token::Key(range))?;
                    }
                    _ => each(&stack, Token::Text(range))?,
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Behind the quote that ends the string that begins at `start`.
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

/// The string whose quotes stand at the ends of `range`.
fn string<'t>(text: &'t str, range: &Range<usize>) -> Option<Cow<'t, str>> {
    let quoted = text.get(range.clone())?;
    let plain = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        serde_json::from_str::<String>(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(plain))
    }
}
