//! Words of a command line, as a shell would read them.

use std::ffi::OsStr;

/// `word`, in quotes where a shell would not read it as this one word otherwise.
pub fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_with_special_characters_is_quoted() {
        for (word, shown) in
            [("run", "run"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("A=1;x", "'A=1;x'")]
        {
            assert_eq!(quoted(OsStr::new(word)), shown);
        }
    }
}
