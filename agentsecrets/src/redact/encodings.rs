//! The forms in which a server may send a value back: what it had decoded, escaped or dumped. Only forms
//! that are named here are known to the redactor; a server that encrypts, reverses or splits a value
//! is beyond it, and the manual says so. No form holds a line break, which is what lets lines of an
//! answer flow at once.

use std::collections::BTreeSet;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

/// A form of a value, wiped when dropped.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form(Vec<u8>);

impl Form {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Deref for Form {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Values shorter than this are not searched for: they would be found everywhere.
const SHORTEST: usize = 4;
/// A part of a value (a line, a password) counts as a secret of its own from this length on.
const SHORTEST_PART: usize = 8;
/// Base64 and hex forms shorter than this would be found by chance in other encoded data.
const SHORTEST_DUMP: usize = 6;

/// Every form of `value`, without duplicates and without line breaks.
pub(super) fn forms(value: &[u8]) -> BTreeSet<Form> {
    let mut forms = BTreeSet::new();
    for part in parts(value) {
        dumps(part, &mut forms);
        escapes(part, &mut forms);
    }
    forms
}

/// What of a value is a secret by itself: each of its lines, and the password of `user:password`.
fn parts(value: &[u8]) -> Vec<&[u8]> {
    let lines: Vec<&[u8]> = value
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .map(<[u8]>::trim_ascii)
        .filter(|line| line.len() >= SHORTEST && !is_armour(line))
        .collect();
    let mut parts: Vec<&[u8]> = match lines.as_slice() {
        // One line: taken whole, with the blanks that it may begin or end with, and without.
        [line] => [value, line]
            .into_iter()
            .filter(|part| !part.contains(&b'\n') && !part.contains(&b'\r'))
            .collect(),
        lines if lines.iter().any(|line| line.len() >= SHORTEST_PART) => {
            lines.iter().copied().filter(|line| line.len() >= SHORTEST_PART).collect()
        }
        lines => lines.to_vec(),
    };
    if let [line] = lines.as_slice() {
        if parts.is_empty() {
            parts.push(line);
        }
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let password = line.get(colon + 1..).unwrap_or_default();
            if password.len() >= SHORTEST_PART {
                parts.push(password);
            }
        }
    }
    parts
}

/// The first and last line of a PEM file, which are in every other PEM file too.
fn is_armour(line: &[u8]) -> bool {
    line.starts_with(b"-----") && line.ends_with(b"-----")
}

/// Base64 and hex, and the escapes that their own characters get.
fn dumps(value: &[u8], forms: &mut BTreeSet<Form>) {
    let mut dumps: Vec<Form> = Vec::new();
    for before in 0..3 {
        dumps.extend(base64_at(&STANDARD_NO_PAD, value, before));
        dumps.extend(base64_at(&URL_SAFE_NO_PAD, value, before));
    }
    dumps.push(each(value, |byte, out| hex(byte, b"", LOWER, out)));
    dumps.push(each(value, |byte, out| hex(byte, b"", UPPER, out)));
    for dump in dumps.into_iter().filter(|dump| dump.len() >= SHORTEST_DUMP) {
        for digits in [LOWER, UPPER] {
            forms.insert(each(&dump, |byte, out| match byte {
                b'+' | b'/' => hex(byte, b"%", digits, out),
                _ => out.push(byte),
            }));
        }
        forms.insert(each(&dump, |byte, out| match byte {
            b'/' => out.extend_from_slice(b"\\/"),
            _ => out.push(byte),
        }));
        forms.insert(dump);
    }
}

/// The base64 of `value` where `before` (0 to 2) other bytes come before it in the same group of three: the
/// characters that the value alone determines, whatever surrounds it; and the same with the last
/// character as it is when nothing follows.
fn base64_at(engine: &impl Engine, value: &[u8], before: usize) -> [Form; 2] {
    let mut padded = Zeroizing::new(vec![0; before]);
    padded.extend_from_slice(value);
    let text = Zeroizing::new(engine.encode(&*padded));
    // The characters that also carry bits of the bytes before: 8 bits reach into 2 of them, 16 into 3.
    let first = [0, 2, 3].get(before).copied().unwrap_or_default();
    let whole = padded.len() * 8 / 6;
    [whole, text.len()].map(|end| Form::of(text.as_bytes().get(first..end).unwrap_or_default()))
}

/// Percent, JSON and HTML.
fn escapes(value: &[u8], forms: &mut BTreeSet<Form>) {
    forms.insert(Form::of(value));
    for digits in [LOWER, UPPER] {
        forms.insert(each(value, |byte, out| hex(byte, b"%", digits, out)));
        for unescaped in PERCENT_LEAVES {
            for space in [&b"%20"[..], b"+"] {
                forms.insert(each(value, |byte, out| match byte {
                    b' ' => out.extend_from_slice(space),
                    _ if byte.is_ascii_alphanumeric() || unescaped.contains(&byte) => out.push(byte),
                    _ => hex(byte, b"%", digits, out),
                }));
            }
        }
    }
    json(value, forms);
    html(value, forms);
}

/// What the common encoders leave as it is beside letters and digits: RFC 3986 and Go's queries, the
/// same with `/` (Python), WHATWG forms, `encodeURIComponent`, Go's path segments, `encodeURI`, and the
/// bare minimum.
const PERCENT_LEAVES: [&[u8]; 7] = [
    b"-_.~",
    b"-_.~/",
    b"-_.*",
    b"-_.!~*'()",
    b"-_.~$&+:=@",
    b"-_.!~*'();/?:@&=+$,#",
    b"!\"$&'()*+,-./:;<=>@[\\]^_`{|}~",
];

/// JSON strings: the least that must be escaped, `/` too (PHP), what Go, Rails and .NET escape for the sake
/// of HTML, everything; text beyond ASCII as itself or as `\u`; and a string within a string.
fn json(value: &[u8], forms: &mut BTreeSet<Form>) {
    let Ok(text) = std::str::from_utf8(value) else { return };
    for digits in [LOWER, UPPER] {
        forms.insert(each_char(text, |char, out| json_unicode(char, digits, out)));
        for as_unicode in [&b""[..], b"<>&", b"<>&'", b"<>&'\"+`"] {
            for slash in [false, true] {
                for ascii in [false, true] {
                    let once = each_char(text, |char, out| match char {
                        '/' if slash => out.extend_from_slice(b"\\/"),
                        _ if char.is_ascii() && as_unicode.contains(&(char as u8)) => {
                            json_unicode(char, digits, out);
                        }
                        '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
                        '\t' => out.extend_from_slice(b"\\t"),
                        '\u{8}' => out.extend_from_slice(b"\\b"),
                        '\u{c}' => out.extend_from_slice(b"\\f"),
                        _ if char.is_control() || (ascii && !char.is_ascii()) => {
                            json_unicode(char, digits, out);
                        }
                        _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                    });
                    forms.insert(each(&once, |byte, out| match byte {
                        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                        _ => out.push(byte),
                    }));
                    forms.insert(once);
                }
            }
        }
    }
}

fn json_unicode(char: char, digits: &[u8; 16], out: &mut Vec<u8>) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        let [high, low] = unit.to_be_bytes();
        hex(high, b"\\u", digits, out);
        hex(low, b"", digits, out);
    }
}

/// HTML: `& < >` and, as the templates have it, quotes and more, by name or number; and everything by number.
fn html(value: &[u8], forms: &mut BTreeSet<Form>) {
    for digits in [LOWER, UPPER] {
        forms.insert(each(value, |byte, out| {
            hex(byte, b"&#x", digits, out);
            out.push(b';');
        }));
    }
    forms.insert(each(value, decimal));
    let quotes: [&[u8]; 4] = [b"\"", b"&quot;", b"&#34;", b"&#x22;"];
    let apostrophes: [&[u8]; 6] = [b"'", b"&#39;", b"&#039;", b"&#x27;", b"&#X27;", b"&apos;"];
    for quote in quotes {
        for apostrophe in apostrophes {
            for more in [false, true] {
                forms.insert(each(value, |byte, out| match byte {
                    b'&' => out.extend_from_slice(b"&amp;"),
                    b'<' => out.extend_from_slice(b"&lt;"),
                    b'>' => out.extend_from_slice(b"&gt;"),
                    b'"' => out.extend_from_slice(quote),
                    b'\'' => out.extend_from_slice(apostrophe),
                    b'/' | b'=' | b'`' if more => {
                        hex(byte, b"&#x", UPPER, out);
                        out.push(b';');
                    }
                    _ => out.push(byte),
                }));
            }
        }
    }
    let special = |byte: u8| matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'');
    forms.insert(each(value, |byte, out| if special(byte) { decimal(byte, out) } else { out.push(byte) }));
}

fn decimal(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("&#{byte};").as_bytes());
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn hex(byte: u8, prefix: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix);
    out.push(digits[usize::from(byte >> 4)]);
    out.push(digits[usize::from(byte & 15)]);
}

fn each(value: &[u8], write: impl Fn(u8, &mut Vec<u8>)) -> Form {
    // Room for the longest escape, so that growing leaves no unwiped copy behind.
    let mut form = Form(Vec::with_capacity(value.len() * 6));
    value.iter().for_each(|byte| write(*byte, &mut form.0));
    form
}

fn each_char(text: &str, write: impl Fn(char, &mut Vec<u8>)) -> Form {
    let mut form = Form(Vec::with_capacity(text.len() * 6));
    text.chars().for_each(|char| write(char, &mut form.0));
    form
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    fn has(value: &str, form: &str) -> bool {
        forms(value.as_bytes()).iter().any(|known| **known == *form.as_bytes())
    }

    #[test]
    fn a_plain_token_is_known_in_every_named_form() {
        let token = "sk_live_51Hx";
        for form in [
            "sk_live_51Hx",
            "c2tfbGl2ZV81MUh4",
            "736b5f6c6976655f35314878",
            "736B5F6C6976655F35314878",
            "%73%6b%5f%6c%69%76%65%5f%35%31%48%78",
            "&#115;&#107;&#95;&#108;&#105;&#118;&#101;&#95;&#53;&#49;&#72;&#120;",
        ] {
            assert!(has(token, form), "{form}");
        }
    }

    #[test]
    fn special_characters_are_known_as_servers_escape_them() {
        let value = "a/b\"c\\d<e>&f' é+";
        for form in [
            r#"a/b\"c\\d<e>&f' é+"#,
            r#"a\/b\"c\\d<e>&f' \u00e9+"#,
            r#"a/b\"c\\d\u003ce\u003e\u0026f' é+"#,
            r"a/b\u0022c\\d\u003Ce\u003E\u0026f\u0027 \u00E9\u002B",
            "a%2Fb%22c%5Cd%3Ce%3E%26f%27%20%C3%A9%2B",
            "a%2fb%22c%5cd%3ce%3e%26f%27+%c3%a9%2b",
            "a/b%22c%5Cd%3Ce%3E&f'%20%C3%A9+",
            "a/b&quot;c\\d&lt;e&gt;&amp;f&#39; é+",
            "a/b&#34;c\\d&lt;e&gt;&amp;f&#x27; é+",
        ] {
            assert!(has(value, form), "{form}");
        }
    }

    #[test]
    fn a_private_key_is_known_by_its_lines_and_not_by_its_armour() {
        let key =
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\r\nkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----\n";
        assert!(has(key, "MIIEvQIBADANBg") && has(key, "kqhkiG9w0BAQEF"));
        assert!(!has(key, "-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn the_password_of_a_pair_is_a_secret_and_a_short_one_is_not() {
        assert!(has("bob:hunter2hunter2", "hunter2hunter2"));
        assert!(!has("bob:pw", "pw"));
    }

    #[test]
    fn very_short_values_are_not_searched_for() {
        assert!(forms(b"abc").is_empty());
        assert!(has("abcd", "abcd"));
    }

    proptest! {
        #[test]
        fn base64_is_found_whatever_stands_around(
            before in proptest::collection::vec(any::<u8>(), 0..5),
            value in proptest::collection::vec(1u8..127, 8..60),
            after in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            prop_assume!(parts(&value) == vec![value.as_slice(), value.as_slice()]);
            let whole = [before, value.clone(), after].concat();
            for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                let found = forms(&value).iter().any(|form| {
                    form.len() + 2 >= value.len() * 4 / 3 && text.as_bytes().windows(form.len()).any(|w| w == &**form)
                });
                prop_assert!(found, "{text}");
            }
        }

        #[test]
        fn no_form_holds_a_line_break(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            for form in forms(&value) {
                prop_assert!(!form.contains(&b'\n') && !form.contains(&b'\r'));
            }
        }
    }
}
