//! The path of a request in the one form that rules are matched against. What two servers may read in two
//! ways is refused, not guessed: encoded separators and dots, double encodings, empty and dot segments,
//! path parameters, control bytes. A rule may let encoded slashes pass, since some APIs need them; then
//! the path must be allowed in both of its readings.

use std::borrow::Cow;

use globset::GlobSet;

/// What a rule calls an encoded slash, in either case of its letter.
pub(super) const ENCODED_SLASH: &str = "%2f";

/// A path as it can be read.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// With its percent-encodings undone, or what makes it ambiguous.
    plain: Result<Cow<'a, str>, &'static str>,
    /// Where encoded slashes are all that makes it ambiguous: as separators, and as part of their segments.
    slashes: Option<(String, String)>,
}

impl<'a> Path<'a> {
    /// Reads a path as it stands on the wire, without the query.
    pub(super) fn read(path: &'a str) -> Self {
        let plain = normalise(path);
        let slashes = plain.is_err().then(|| with_slashes(path)).flatten();
        Self { plain, slashes }
    }

    /// Which of `globs` matches it first, where it can be read in one way only.
    pub(super) fn first_match(&self, globs: &GlobSet) -> Option<usize> {
        self.plain.as_ref().ok().and_then(|path| globs.matches(&**path).into_iter().min())
    }

    /// Whether `globs` (where there are none: anything) allow it in every reading that it has, or what
    /// makes it ambiguous. Encoded slashes are readings only where the rule lets them pass.
    pub(super) fn allowed(
        &self,
        globs: Option<&GlobSet>,
        encoded_slashes: bool,
    ) -> Result<bool, &'static str> {
        let matches = |path: &str| globs.is_none_or(|globs| globs.is_match(path));
        match (&self.plain, &self.slashes) {
            (Ok(path), _) => Ok(matches(path)),
            (Err(_), Some((separating, within))) if encoded_slashes => {
                Ok(matches(separating) && matches(within))
            }
            (Err(why), _) => Err(why),
        }
    }
}

/// The two readings of a path that holds encoded slashes and nothing else that is ambiguous: neither has
/// an empty or a dot segment.
fn with_slashes(path: &str) -> Option<(String, String)> {
    let path = path.replace("%2F", ENCODED_SLASH);
    if !path.starts_with('/') || !path.contains(ENCODED_SLASH) {
        return None;
    }
    let pieces: Vec<&str> = path.split(ENCODED_SLASH).collect();
    let separating = normalise(&pieces.join("/")).ok()?.into_owned();
    // Their bounds are bounds of characters, or the first reading would be no UTF-8.
    let decoded = pieces.iter().map(|piece| percent_encoding::percent_decode_str(piece).decode_utf8());
    let within = decoded.collect::<Result<Vec<_>, _>>().ok()?.join(ENCODED_SLASH);
    Some((separating, within))
}

/// The path with its percent-encodings undone, or what makes it ambiguous.
fn normalise(path: &str) -> Result<Cow<'_, str>, &'static str> {
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
            // Some servers take it for UTF-8, some for Latin-1.
            0x80.. => return Err("it holds a character that must be percent-encoded"),
            _ => {}
        }
    }
    let decoded = if encoded {
        // An over-long encoding of a slash or dot is no UTF-8 either.
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
    // C1 controls and separators that only some readers see as such.
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
    fn an_encoding_that_changes_nothing_is_undone() {
        assert_eq!(normalise("/v1/ch%61rges").unwrap(), "/v1/charges");
        assert_eq!(normalise("/q/a%20b%C3%A9").unwrap(), "/q/a bé");
        assert_eq!(normalise("").unwrap(), "/");
        assert_eq!(normalise("/a/...").unwrap(), "/a/...");
    }

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut set = globset::GlobSetBuilder::new();
        for pattern in patterns {
            set.add(crate::policy::matching::glob(pattern).unwrap());
        }
        set.build().unwrap()
    }

    #[test]
    fn an_encoded_slash_passes_where_the_rule_says_so_and_both_readings_are_allowed() {
        let allowed = |path, patterns: &[&str]| Path::read(path).allowed(Some(&globs(patterns)), true);
        for path in ["/@acme%2ftool", "/@acme%2Ftool"] {
            assert_eq!(Path::read(path).allowed(None, false), Err("it holds an encoded slash"));
            assert_eq!(Path::read(path).allowed(None, true), Ok(true));
            assert_eq!(allowed(path, &["/**"]), Ok(true));
            assert_eq!(allowed(path, &["/@acme/*", "/@acme%2f*"]), Ok(true));
            // A server that reads a separator, and one that does not.
            assert_eq!(allowed(path, &["/*"]), Ok(false));
            assert_eq!(allowed(path, &["/@acme/*"]), Ok(false));
        }
        assert_eq!(allowed("/q/%C3%A9%2fb", &["/q/é/b", "/q/é%2fb"]), Ok(true));
        assert_eq!(allowed("/a/b", &["/a/*"]), Ok(true));
    }

    #[test]
    fn letting_encoded_slashes_pass_lets_nothing_else_pass() {
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
            assert!(Path::read(bad).allowed(None, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
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
            assert!(normalise(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_one_reading(path in "(/|%2[EeFf5]|%5[Cc]|\\.|;|\\\\|%[0-9a-f]{2}|[a-z]|%|\u{e9}){0,12}") {
            if let Ok(decoded) = normalise(&path) {
                prop_assert!(decoded.starts_with('/'));
                prop_assert!(!decoded.contains("//") && !decoded.contains(['\\', ';', '%']));
                prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count().max(1));
            }
            if let Some((separating, within)) = with_slashes(&path) {
                prop_assert!(separating.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!separating.contains("//") && !separating.contains(['\\', ';', '%']));
                prop_assert_eq!(within.replace(ENCODED_SLASH, "/"), separating);
            }
        }
    }
}
