//! Normalizes request paths for rule matching. A path that servers may read in two ways is refused: encoded
//! separators and dots, double encodings, empty and dot segments, path parameters, control bytes. A rule may
//! allow encoded slashes, which some APIs need; both readings of the path must then be allowed.

use std::borrow::Cow;

use globset::GlobSet;

/// An encoded slash as rules write it. Either case matches.
pub(super) const ENCODED_SLASH: &str = "%2f";

/// A parsed request path.
#[derive(Debug)]
pub(super) struct RequestPath<'a> {
    /// The percent-decoded path, or the reason why it is ambiguous.
    decoded: Result<Cow<'a, str>, &'static str>,
    /// Both readings, if only encoded slashes make it ambiguous: as separators, and as part of their
    /// segments.
    slash_readings: Option<(String, String)>,
}

impl<'a> RequestPath<'a> {
    /// Parses a path as received, without the query.
    pub(super) fn parse(path: &'a str) -> Self {
        let decoded = normalize(path);
        let slash_readings = decoded.is_err().then(|| read_encoded_slashes(path)).flatten();
        Self { decoded, slash_readings }
    }

    /// The index of the first matching glob, if the path is unambiguous.
    pub(super) fn first_match(&self, globs: &GlobSet) -> Option<usize> {
        self.decoded.as_ref().ok().and_then(|path| globs.matches(&**path).into_iter().min())
    }

    /// Whether `globs` allow every reading of the path; `None` allows any. The error is the reason why the
    /// path is ambiguous.
    pub(super) fn is_allowed(
        &self,
        globs: Option<&GlobSet>,
        encoded_slashes: bool,
    ) -> Result<bool, &'static str> {
        let matches = |path: &str| globs.is_none_or(|globs| globs.is_match(path));
        match (&self.decoded, &self.slash_readings) {
            (Ok(path), _) => Ok(matches(path)),
            (Err(_), Some((separating, within))) if encoded_slashes => {
                Ok(matches(separating) && matches(within))
            }
            (Err(reason), _) => Err(reason),
        }
    }
}

/// The two readings of a path that only encoded slashes make ambiguous. Neither has an empty or a dot
/// segment.
fn read_encoded_slashes(path: &str) -> Option<(String, String)> {
    let path = path.replace("%2F", ENCODED_SLASH);
    if !path.starts_with('/') || !path.contains(ENCODED_SLASH) {
        return None;
    }
    let pieces: Vec<&str> = path.split(ENCODED_SLASH).collect();
    let separating = normalize(&pieces.join("/")).ok()?.into_owned();
    // The pieces end at character boundaries, as the first reading is valid UTF-8.
    let decoded = pieces.iter().map(|piece| percent_encoding::percent_decode_str(piece).decode_utf8());
    let within = decoded.collect::<Result<Vec<_>, _>>().ok()?.join(ENCODED_SLASH);
    Some((separating, within))
}

/// The percent-decoded path. The error is the reason why it is ambiguous.
fn normalize(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if !path.starts_with('/') {
        return Err("it does not start with '/'");
    }
    let mut encoded = false;
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => return Err("it holds a backslash"),
            b';' => return Err("it holds ';'"),
            b'?' | b'#' => return Err("it holds '?' or '#'"),
            b'%' => {
                encoded = true;
                let digits = bytes.next().zip(bytes.next());
                match digits.and_then(|(high, low)| Some(hex(high)? << 4 | hex(low)?)) {
                    None => return Err("it holds a '%' that encodes nothing"),
                    Some(b'/' | b'\\') => return Err("it holds an encoded slash"),
                    Some(b'.') => return Err("it holds an encoded dot"),
                    Some(b'%') => return Err("it is encoded twice"),
                    Some(b';') => return Err("it holds an encoded ';'"),
                    Some(byte) if byte.is_ascii_control() => return Err("it holds an encoded control byte"),
                    Some(_) => {}
                }
            }
            byte if byte <= b' ' || byte == 0x7f => return Err("it holds a blank or control byte"),
            // Servers read it as UTF-8 or as Latin-1.
            0x80.. => return Err("it holds a character that must be percent-encoded"),
            _ => {}
        }
    }
    let decoded = if encoded {
        // This refuses over-long encodings of slashes and dots too.
        percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| "it encodes what is no UTF-8")?
    } else {
        Cow::Borrowed(path)
    };
    if decoded.contains("//") {
        return Err("it holds '//'");
    }
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("it holds a '.' or '..' segment");
    }
    // C1 controls and line separators, which only some parsers treat as such.
    if decoded.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("it holds a control character");
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_encoding_is_decoded() {
        assert_eq!(normalize("/v1/ch%61rges").unwrap(), "/v1/charges");
        assert_eq!(normalize("/q/a%20b%C3%A9").unwrap(), "/q/a bé");
        assert_eq!(normalize("").unwrap(), "/");
        assert_eq!(normalize("/a/...").unwrap(), "/a/...");
    }

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut set = globset::GlobSetBuilder::new();
        for pattern in patterns {
            set.add(crate::policy::glob::parse_glob(pattern).unwrap());
        }
        set.build().unwrap()
    }

    #[test]
    fn encoded_slash_needs_permission_and_two_allowed_readings() {
        let allowed =
            |path, patterns: &[&str]| RequestPath::parse(path).is_allowed(Some(&globs(patterns)), true);
        for path in ["/@acme%2ftool", "/@acme%2Ftool"] {
            assert_eq!(RequestPath::parse(path).is_allowed(None, false), Err("it holds an encoded slash"));
            assert_eq!(RequestPath::parse(path).is_allowed(None, true), Ok(true));
            assert_eq!(allowed(path, &["/**"]), Ok(true));
            assert_eq!(allowed(path, &["/@acme/*", "/@acme%2f*"]), Ok(true));
            // One server reads a separator, another does not.
            assert_eq!(allowed(path, &["/*"]), Ok(false));
            assert_eq!(allowed(path, &["/@acme/*"]), Ok(false));
        }
        assert_eq!(allowed("/q/%C3%A9%2fb", &["/q/é/b", "/q/é%2fb"]), Ok(true));
        assert_eq!(allowed("/a/b", &["/a/*"]), Ok(true));
    }

    #[test]
    fn allowing_encoded_slashes_allows_nothing_else() {
        for bad in [
            "/v1/..%2fadmin",
            "/v1%2f..%2fadmin",
            "/v1%2f%2e%2e%2fadmin",
            "/v1%2f.",
            "/a%2f%2fb",
            "/a%2f/b",
            "/%2fa",
            "%2fa",
            "/a%252fb",
            "/a%2f%5cb",
            "/a%2f;b",
            "/a%2fb%00",
            "/%c3%2f%a9",
            "/%%2f2f",
            "/%2%2ff",
            "/a%2fb?c",
        ] {
            assert!(RequestPath::parse(bad).is_allowed(None, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ambiguous_path_is_refused() {
        for bad in [
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1/../admin",
            "/v1/./a",
            "/v1/..",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "//a",
            "/a//b",
            "/a;b=c/d",
            "/a%3bb",
            "/a%252fb",
            "/a%25",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/a%00",
            "/a%0d%0aX",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/%c0%af",
            "/%c0%ae",
            "/%ff",
            "/%c2%85",
            "*",
            "v1",
            "/a?b",
            "/a#b",
            "/\u{e9}",
        ] {
            assert!(normalize(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn accepted_path_has_one_reading(path in "(/|%2[EeFf5]|%5[Cc]|\\.|;|\\\\|%[0-9a-f]{2}|[a-z]|%|\u{e9}){0,12}") {
            if let Ok(decoded) = normalize(&path) {
                prop_assert!(decoded.starts_with('/'));
                prop_assert!(!decoded.contains("//") && !decoded.contains(['\\', ';', '%']));
                prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count().max(1));
            }
            if let Some((separating, within)) = read_encoded_slashes(&path) {
                prop_assert!(separating.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!separating.contains("//") && !separating.contains(['\\', ';', '%']));
                prop_assert_eq!(within.replace(ENCODED_SLASH, "/"), separating);
            }
        }
    }
}
