//! Encodings in which servers repeat a value, written independently of the search: the tests, the fuzzer and
//! the property tests hold the search to them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

/// A way to write a value, and what it is called.
pub type Encoder = (&'static str, fn(&[u8]) -> Vec<u8>);

/// Ways to write a value.
pub const ENCODERS: [Encoder; 44] = [
    ("verbatim", |value| value.to_vec()),
    ("upper case", |value| value.to_ascii_uppercase()),
    ("lower case", |value| value.to_ascii_lowercase()),
    ("base64", |value| STANDARD.encode(value).into()),
    ("base64 behind one byte", |value| STANDARD.encode([b":", value].concat()).into()),
    ("base64 behind two bytes", |value| STANDARD.encode([b"u:", value].concat()).into()),
    ("base64url", |value| URL_SAFE.encode(value).into()),
    ("base64 amid text", |value| STANDARD.encode([b"name=", value, b"; and more"].concat()).into()),
    ("base64 in lines of 64", |value| wrapped(&around(value), 64, b"\n")),
    ("base64 in lines of 76", |value| wrapped(&around(value), 76, b"\r\n")),
    ("base64 in lines of 64 in JSON", |value| wrapped(&around(value), 64, b"\\n")),
    ("base64 in lines of 76 in JSON", |value| wrapped(&around(value), 76, b"\\r\\n")),
    ("base64 in lines of 64 in YAML", |value| wrapped(&around(value), 64, b"\n    ")),
    ("base64 in a folded header", |value| wrapped(&around(value), 40, b"\r\n ")),
    ("base64 in lines of an event", |value| wrapped(&around(value), 60, b"\ndata: ")),
    ("base64, percent-encoded", |value| percent(STANDARD.encode(value).as_bytes(), b"")),
    ("base64 in PHP's JSON", |value| STANDARD.encode(value).replace('/', "\\/").into()),
    ("hex", |value| hex(value, "", "", str::to_lowercase)),
    ("upper hex", |value| hex(value, "", "", str::to_uppercase)),
    ("mixed hex", |value| hex(value, "", "", mixed)),
    ("hex with colons", |value| hex(value, "", ":", str::to_uppercase)),
    ("hex with blanks", |value| hex(value, "", " ", mixed)),
    ("hex with dashes", |value| hex(value, "", "-", str::to_lowercase)),
    ("hex in lines", |value| fold_at(&hex(value, "", "", str::to_lowercase), 32, b"\n")),
    ("hex escapes", |value| hex(value, "\\x", "", str::to_lowercase)),
    ("an array in C", |value| hex(value, "0x", ", ", str::to_lowercase)),
    ("an array of numbers", |value| numbers(value, ",")),
    ("an array of numbers and blanks", |value| numbers(value, ", ")),
    ("percent", |value| percent(value, b"-_.~")),
    ("percent, all of it", |value| hex(value, "%", "", str::to_uppercase)),
    ("lower percent, all of it", |value| hex(value, "%", "", str::to_lowercase)),
    ("percent, twice", |value| percent(&percent(value, b"-_.~"), b"-_.~")),
    ("a form", |value| url::form_urlencoded::byte_serialize(value).collect::<String>().into()),
    ("JSON", json),
    ("JSON in JSON", |value| json(&json(value))),
    ("JSON, all of it", |value| units(value, |unit| format!("\\u{unit:04x}"))),
    ("JSON, percent-encoded", |value| percent(&json(value), b"")),
    ("HTML", |value| html(value, "&#39;")),
    ("HTML, all of it by number", |value| chars(value, |char| format!("&#{};", char as u32))),
    ("HTML, all of it by hex number", |value| chars(value, |char| format!("&#x{:X};", char as u32))),
    ("UTF-16, little end first", |value| utf16(value, u16::to_le_bytes)),
    ("UTF-16, with its mark", |value| [vec![0xfe, 0xff], utf16(value, u16::to_be_bytes)].concat()),
    ("base64 of UTF-16", |value| STANDARD.encode(utf16(value, u16::to_le_bytes)).into()),
    ("base64 of UTF-16, big end first", |value| {
        STANDARD.encode([vec![0xfe, 0xff], utf16(value, u16::to_be_bytes)].concat()).into()
    }),
];

/// Text around `value` that puts it across the end of a line.
fn around(value: &[u8]) -> Vec<u8> {
    [b"some words before it: ", value, b", and some behind it, to fill a line"].concat()
}

fn wrapped(bytes: &[u8], columns: usize, line_break: &[u8]) -> Vec<u8> {
    fold_at(STANDARD_NO_PAD.encode(bytes).as_bytes(), columns, line_break)
}

fn fold_at(text: &[u8], columns: usize, line_break: &[u8]) -> Vec<u8> {
    text.chunks(columns).collect::<Vec<_>>().join(line_break)
}

fn hex(bytes: &[u8], before: &str, between: &str, case: fn(&str) -> String) -> Vec<u8> {
    let digits = bytes.iter().map(|byte| format!("{before}{}", case(&format!("{byte:02x}"))));
    digits.collect::<Vec<_>>().join(between).into()
}

fn mixed(digits: &str) -> String {
    let (high, low) = digits.split_at(1);
    high.to_uppercase() + low
}

fn numbers(bytes: &[u8], between: &str) -> Vec<u8> {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into()
}

fn percent(bytes: &[u8], unescaped: &[u8]) -> Vec<u8> {
    let is_left = |byte: &u8| byte.is_ascii_alphanumeric() || unescaped.contains(byte);
    let each = |byte: &u8| if is_left(byte) { vec![*byte] } else { format!("%{byte:02X}").into() };
    bytes.iter().flat_map(each).collect()
}

fn json(value: &[u8]) -> Vec<u8> {
    let text = serde_json::to_string(&String::from_utf8_lossy(value)).unwrap_or_default();
    text.get(1..text.len() - 1).unwrap_or_default().into()
}

fn html(value: &[u8], apostrophe: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(value).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', apostrophe).into()
}

fn chars(value: &[u8], write: fn(char) -> String) -> Vec<u8> {
    String::from_utf8_lossy(value).chars().map(write).collect::<String>().into()
}

fn units(value: &[u8], write: fn(u16) -> String) -> Vec<u8> {
    String::from_utf8_lossy(value).encode_utf16().map(write).collect::<String>().into()
}

fn utf16(value: &[u8], bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    String::from_utf8_lossy(value).encode_utf16().flat_map(bytes).collect()
}
