//! Digest headers of a changed body. Known algorithms are computed again and others removed, because the
//! server would reject a digest of the original bytes.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields of RFC 9530, dictionaries of byte sequences.
const DIGEST_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("repr-digest")];
/// The field of RFC 3230, a list of parameters.
const LEGACY_DIGEST: HeaderName = HeaderName::from_static("digest");
/// MD5 is never computed.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Recomputes the digests in `headers` for `bytes`. Returns remarks about removed digests.
pub(in crate::inject) fn recompute(headers: &mut HeaderMap, bytes: &[u8]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut drop =
        |name: &HeaderName, what: &str| notes.push(format!("dropped {name}{what}: the body changed"));
    for (name, is_field) in [(&DIGEST_FIELDS[0], true), (&DIGEST_FIELDS[1], true), (&LEGACY_DIGEST, false)] {
        if !headers.contains_key(name) {
            continue;
        }
        let said = headers.get_all(name).iter();
        let said: Vec<String> = said
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|member| member.split(|byte| *byte == b'=').next())
            .map(|algorithm| String::from_utf8_lossy(algorithm).trim().to_ascii_lowercase())
            .collect();
        let known: Vec<String> = [("sha-256", &SHA256), ("sha-512", &SHA512)]
            .into_iter()
            .filter(|(algorithm, _)| said.iter().any(|said| said == algorithm))
            .map(|(algorithm, how)| dictionary_member(algorithm, how, bytes, is_field))
            .collect();
        headers.remove(name);
        match HeaderValue::try_from(known.join(", ")) {
            Ok(value) if !known.is_empty() => {
                headers.insert(name, value);
                if known.len() < said.len() {
                    drop(name, " but for SHA-2");
                }
            }
            _ => drop(name, ""),
        }
    }
    if headers.remove(CONTENT_MD5).is_some() {
        drop(&CONTENT_MD5, "");
    }
    notes
}

fn dictionary_member(name: &str, algorithm: &'static Algorithm, bytes: &[u8], is_field: bool) -> String {
    let value = STANDARD.encode(digest(algorithm, bytes));
    if is_field { format!("{name}=:{value}:") } else { format!("{name}={value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refitted(headers: &[(&'static str, &str)]) -> (HeaderMap, Vec<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let notes = recompute(&mut map, br#"{"hello": "world"}"#);
        (map, notes)
    }

    #[test]
    fn rfc_digests_are_recomputed() {
        // RFC 9530, appendix B, and its form in RFC 3230.
        let sha256 = "X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=";
        let (headers, notes) = refitted(&[
            ("content-digest", "sha-256=:AAAA:"),
            ("digest", "SHA-256=AAAA"),
            ("repr-digest", "sha-512=:AA==:"),
        ]);
        assert_eq!(headers["content-digest"], format!("sha-256=:{sha256}:"));
        assert_eq!(headers["digest"], format!("sha-256={sha256}"));
        assert!(headers["repr-digest"].to_str().unwrap().starts_with("sha-512=:WZDPaVn"));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn unknown_digests_are_removed_and_noted() {
        let (headers, notes) = refitted(&[
            ("content-md5", "AAAA"),
            ("digest", "md5=AAAA, unixsum=1"),
            ("content-digest", "sha-256=:AAAA:, md5=:AAAA:"),
        ]);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("content-digest"));
        assert_eq!(notes.len(), 3, "{notes:?}");
    }
}
