//! One layer of escapes taken off: percent, backslash (JSON, JavaScript, C, shells) and HTML entities. What is no
//! whole escape stays as it is. Escapes may also be read into text that has none, so what this gives is
//! searched beside the text itself, never in its stead.

use memchr::memchr3;

/// The layers of escapes that are removed: a JSON text within a JSON text, a percent-encoded entity.
pub(super) const LAYERS: usize = 2;

/// Takes what is read: bytes that stand for themselves, and those that an escape stands for.
pub(super) trait Sink {
    /// `bytes` stand in the text, from `at` on.
    fn literal(&mut self, bytes: &[u8], at: usize);
    /// The `length` bytes of the text from `at` on stand for `bytes`.
    fn escape(&mut self, bytes: &[u8], at: usize, length: usize);
}

impl Sink for Vec<u8> {
    fn literal(&mut self, bytes: &[u8], _: usize) {
        self.extend_from_slice(bytes);
    }

    fn escape(&mut self, bytes: &[u8], _: usize, _: usize) {
        self.extend_from_slice(bytes);
    }
}

/// Whether there may be an escape in `text`.
pub(super) fn has_escape(text: &[u8]) -> bool {
    memchr3(b'%', b'&', b'\\', text).is_some()
}

/// Reads `text` into `sink`; whether there was any escape.
pub(super) fn unescape(text: &[u8], sink: &mut impl Sink) -> bool {
    let (mut at, mut any) = (0, false);
    // Bytes before `at` that stand for themselves and are not in the sink yet.
    let mut from = 0;
    while let Some(next) = text.get(at..).and_then(|rest| memchr3(b'%', b'&', b'\\', rest)) {
        at += next;
        let rest = text.get(at..).unwrap_or_default();
        let Some((meaning, length)) = token(rest) else {
            at += 1;
            continue;
        };
        sink.literal(text.get(from..at).unwrap_or_default(), from);
        sink.escape(meaning.as_slice(), at, length);
        any = true;
        at += length;
        from = at;
    }
    sink.literal(text.get(from..).unwrap_or_default(), from);
    any
}

/// The meaning of an escape: a byte, or the UTF-8 of a character.
enum Meaning {
    Byte([u8; 1]),
    Char([u8; 4], usize),
}

impl Meaning {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Byte(byte) => byte,
            Self::Char(bytes, length) => bytes.get(..*length).unwrap_or_default(),
        }
    }

    fn char(code: u32) -> Option<Self> {
        let mut bytes = [0; 4];
        let length = char::from_u32(code)?.encode_utf8(&mut bytes).len();
        Some(Self::Char(bytes, length))
    }
}

/// The escape at the start of `text`, and its length.
fn token(text: &[u8]) -> Option<(Meaning, usize)> {
    match text {
        [b'%', b'u' | b'U', rest @ ..] => Some((Meaning::char(number(rest, 4)?)?, 6)),
        [b'%', rest @ ..] => Some((byte(rest)?, 3)),
        [b'&', rest @ ..] => entity(rest),
        [b'\\', rest @ ..] => backslash(rest),
        _ => None,
    }
}

fn backslash(text: &[u8]) -> Option<(Meaning, usize)> {
    let simple = |byte| Some((Meaning::Byte([byte]), 2));
    match text {
        [b'u', b'{', rest @ ..] => {
            let (code, length) = run(rest, 16, b'}')?;
            Some((Meaning::char(code)?, length + 4))
        }
        [b'u' | b'U', rest @ ..] => {
            let high = number(rest, 4)?;
            if let Some([b'\\', b'u', low @ ..]) = rest.get(4..)
                && (0xd800..0xdc00).contains(&high)
                && let Some(low @ 0xdc00..0xe000) = number(low, 4)
            {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Some((Meaning::char(code)?, 12));
            }
            Some((Meaning::char(high)?, 6))
        }
        [b'x' | b'X', rest @ ..] => Some((byte(rest)?, 4)),
        [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((Meaning::Byte([(a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')]), 4))
        }
        [b'n' | b'r', ..] => simple(b'\n'),
        [b't', ..] => simple(b'\t'),
        [b'b', ..] => simple(8),
        [b'f', ..] => simple(12),
        // Nobody escapes these so, and an escape of another kind may begin here.
        [b'%' | b'&', ..] => None,
        // Many in a row are as good as one: else what is behind enough of them would need a layer for each halving.
        [b'\\', rest @ ..] => {
            let more = rest.iter().take_while(|byte| **byte == b'\\').count();
            Some((Meaning::Byte([b'\\']), 2 + more / 2 * 2))
        }
        [byte, ..] if byte.is_ascii_punctuation() => simple(*byte),
        _ => None,
    }
}

fn entity(text: &[u8]) -> Option<(Meaning, usize)> {
    match text {
        [b'#', b'x' | b'X', rest @ ..] => {
            let (code, length) = run(rest, 16, b';')?;
            Some((Meaning::char(code)?, length + 4))
        }
        [b'#', rest @ ..] => {
            let (code, length) = run(rest, 10, b';')?;
            Some((Meaning::char(code)?, length + 3))
        }
        _ => NAMES.iter().find_map(|(name, byte)| {
            text.strip_prefix(name.as_bytes())?.first().filter(|end| **end == b';')?;
            Some((Meaning::Byte([*byte]), name.len() + 2))
        }),
    }
}

const NAMES: [(&str, u8); 12] = [
    ("amp", b'&'),
    ("lt", b'<'),
    ("gt", b'>'),
    ("quot", b'"'),
    ("apos", b'\''),
    ("sol", b'/'),
    ("plus", b'+'),
    ("equals", b'='),
    ("lowbar", b'_'),
    ("colon", b':'),
    ("period", b'.'),
    ("nbsp", b' '),
];

fn byte(text: &[u8]) -> Option<Meaning> {
    number(text, 2).and_then(|value| u8::try_from(value).ok()).map(|value| Meaning::Byte([value]))
}

/// So many hexadecimal digits.
fn number(text: &[u8], digits: usize) -> Option<u32> {
    text.get(..digits)?.iter().try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
}

/// Up to eight digits, and what ends them; and how many they are.
fn run(text: &[u8], radix: u32, end: u8) -> Option<(u32, usize)> {
    let length = text.iter().take(9).position(|byte| *byte == end).filter(|length| *length > 0)?;
    let digits = text.get(..length)?;
    let value = digits.iter().try_fold(0u32, |value, byte| {
        value.checked_mul(radix)?.checked_add(char::from(*byte).to_digit(radix)?)
    });
    Some((value?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut out = Vec::new();
        unescape(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_escape_is_decoded() {
        for (text, meaning) in [
            ("%61%2f%C3%A9%u00e9", "a/\u{e9}\u{e9}"),
            (r#"\u0061\/\"\\\t"#, "a/\"\\\t"),
            (r"\u00E9\u{e9}\ud83d\uDE00", "\u{e9}\u{e9}\u{1f600}"),
            (r"\x61\141", "aa"),
            (r"a\nb\r\n", "a\nb\n\n"),
            (r"\\u0061", r"\u0061"),
            (r"\\\u0061", r"\a"),
            (r"\\\\\\\\u0061", r"\u0061"),
            ("&amp;&#97;&#x61;&#X61;&#128512;&quot;&sol;", "&aaa\u{1f600}\"/"),
        ] {
            assert_eq!(read(text), meaning);
        }
    }

    #[test]
    fn invalid_escape_is_unchanged() {
        for text in
            ["100% & more", "%4", "%zz", "&amp", "&#;", "&#999999999;", r"\u12", r"\q", "\\", r"\ud83d"]
        {
            assert_eq!(read(text), text);
        }
    }
}
