//! The secret parts of a stored value: as a rule all of it, and within it parts that deserve protection by
//! themselves, such as the password of a pair. Public parts are not secret although they are stored: the
//! armour and certificates of a PEM file, the header of a JWT, the addresses in a service account's file.

use std::ops::Range;

use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

/// Values shorter than this are not searched for: they would be found everywhere.
const MIN_LEN: usize = 4;
/// A part of a value (a line, a password) counts as a secret of its own from this length on.
const MIN_FRAGMENT_LEN: usize = 8;
/// The endings of names whose values are secret in a file of names and values.
const SECRET_NAME_ENDINGS: [&str; 8] =
    ["key", "secret", "token", "password", "passwd", "credential", "private", "key_id"];

/// Something to be searched for.
pub(super) struct Fragment {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// The range of the secret itself in `bytes`. Only pieces of this count as pieces of a secret.
    pub(super) core: Range<usize>,
}

impl Fragment {
    fn of(bytes: &[u8], core: Range<usize>) -> Self {
        Self { bytes: Zeroizing::new(bytes.to_vec()), core }
    }

    fn whole(bytes: &[u8]) -> Self {
        Self::of(bytes, 0..bytes.len())
    }
}

/// The parts of `value`.
pub(super) fn fragments(value: &[u8]) -> Vec<Fragment> {
    let value = value.trim_ascii();
    if let Some(parts) = json_file(value).or_else(|| pem_fragments(value)) {
        return parts;
    }
    let lines: Vec<&[u8]> =
        value.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).collect();
    match lines.as_slice() {
        [line] => line_fragments(line),
        lines => {
            let parts =
                lines.iter().filter(|line| line.len() >= MIN_FRAGMENT_LEN).map(|line| Fragment::whole(line));
            parts.chain([Fragment::whole(value)]).filter(|part| part.bytes.len() >= MIN_LEN).collect()
        }
    }
}

fn line_fragments(line: &[u8]) -> Vec<Fragment> {
    if line.len() < MIN_LEN {
        return Vec::new();
    }
    let mut parts = Vec::new();
    let core = match password_range(line) {
        // The password of a pair, or of an address, is a secret without the rest.
        Some(core) => {
            parts.push(Fragment::whole(line.get(core.clone()).unwrap_or_default()));
            core
        }
        None => jwt_header_len(line)..line.len(),
    };
    parts.push(Fragment::of(line, core));
    parts
}

/// The range of the password in `user:password` or `scheme://user:password@host`.
fn password_range(line: &[u8]) -> Option<Range<usize>> {
    let text = std::str::from_utf8(line).ok()?;
    let password = match Url::parse(text).ok().filter(|url| url.has_authority()) {
        Some(url) => {
            let password = url.password()?;
            let at = text.find(password)?;
            at..at + password.len()
        }
        None => text.find(':')? + 1..text.len(),
    };
    (password.len() >= MIN_FRAGMENT_LEN).then_some(password)
}

/// The length of the first segment of a JWT: base64 of words such as `{"alg":"RS256"`, which other tokens
/// share.
fn jwt_header_len(line: &[u8]) -> usize {
    let mut dots = line.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    match (line.starts_with(b"eyJ"), dots.next(), dots.next()) {
        (true, Some(first), Some(_)) => first + 1,
        _ => 0,
    }
}

/// The secret blocks of a PEM file.
fn pem_fragments(value: &[u8]) -> Option<Vec<Fragment>> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.contains("-----BEGIN "))?;
    let blocks = text.split("-----BEGIN ").skip(1).filter_map(|block| {
        let (kind, rest) = block.split_once("-----")?;
        let body = rest.split("-----END ").next()?.trim();
        let is_known = kind.contains("CERTIFICATE") || kind.contains("PUBLIC KEY");
        (!is_known && body.len() >= MIN_FRAGMENT_LEN).then(|| Fragment::whole(body.as_bytes()))
    });
    let blocks: Vec<Fragment> = blocks.collect();
    (!blocks.is_empty()).then_some(blocks)
}

/// The values of a JSON object whose names tell of secrets; all of its texts, if no name does.
fn json_file(value: &[u8]) -> Option<Vec<Fragment>> {
    if !value.starts_with(b"{") {
        return None;
    }
    let object: Value = serde_json::from_slice(value).ok().filter(Value::is_object)?;
    let mut texts = Vec::new();
    json_texts("", &object, &mut texts);
    let is_secret =
        |name: &str| SECRET_NAME_ENDINGS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    let any = texts.iter().any(|(name, _)| is_secret(name));
    let secret = texts.iter().filter(|(name, _)| !any || is_secret(name)).map(|(_, text)| text.as_bytes());
    let parts: Vec<Fragment> =
        secret.filter(|text| text.len() >= MIN_FRAGMENT_LEN).flat_map(fragments).collect();
    (!parts.is_empty()).then_some(parts)
}

fn json_texts<'v>(name: &'v str, value: &'v Value, texts: &mut Vec<(&'v str, &'v str)>) {
    match value {
        Value::String(text) => texts.push((name, text)),
        Value::Array(items) => items.iter().for_each(|item| json_texts(name, item, texts)),
        Value::Object(members) => members.iter().for_each(|(name, value)| json_texts(name, value, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(value: &str) -> Vec<String> {
        fragments(value.as_bytes())
            .iter()
            .map(|part| {
                let text = String::from_utf8(part.bytes.to_vec()).unwrap();
                format!(
                    "{}[{}]{}",
                    &text[..part.core.start],
                    &text[part.core.clone()],
                    &text[part.core.end..]
                )
            })
            .collect()
    }

    #[test]
    fn token_is_trimmed() {
        assert_eq!(known(" sk_live_1234\n"), ["[sk_live_1234]"]);
        assert_eq!(known("abc"), [""; 0]);
    }

    #[test]
    fn password_of_pair_or_url_is_a_fragment() {
        assert_eq!(known("bob:hunter2hunter2"), ["[hunter2hunter2]", "bob:[hunter2hunter2]"]);
        assert_eq!(known("bob:pw"), ["[bob:pw]"]);
        let address = "postgres://bob:hunter2hunter2@db.example.com/orders";
        let core = "postgres://bob:[hunter2hunter2]@db.example.com/orders";
        assert_eq!(known(address), ["[hunter2hunter2]", core]);
        assert_eq!(known("https://hooks.example.com/T00/abcdef"), ["[https://hooks.example.com/T00/abcdef]"]);
    }

    #[test]
    fn jwt_header_is_public() {
        assert_eq!(known("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2ln"), ["eyJhbGciOiJub25lIn0.[eyJhIjoxfQ.c2ln]"]);
    }

    #[test]
    fn pem_armour_and_certificate_are_public() {
        let file = "-----BEGIN CERTIFICATE-----\nMIIBIjANBgkq\n-----END CERTIFICATE-----\n\
                    -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\r\nkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----\n";
        assert_eq!(known(file), ["[MIIEvQIBADANBg\r\nkqhkiG9w0BAQEF]"]);
        let public = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkq\n-----END PUBLIC KEY-----";
        assert!(known(public).contains(&format!("[{public}]")), "what is stored alone is what is meant");
    }

    #[test]
    fn service_account_addresses_are_public() {
        let file = r#"{"type":"service_account","private_key_id":"0123456789abcdef","client_email":"a@b.example",
            "private_key":"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n",
            "token_uri":"https://oauth2.example.com/token"}"#;
        assert_eq!(known(file), ["[MIIEvQIBADANBg]", "[0123456789abcdef]"]);
        assert_eq!(known(r#"{"a":"hunter2hunter2"}"#), ["[hunter2hunter2]"]);
    }

    #[test]
    fn lines_are_fragments_alone_and_together() {
        assert_eq!(
            known("first line\nb\r\n  third line"),
            ["[first line]", "[third line]", "[first line\nb\r\n  third line]"]
        );
    }
}
