//! Parses `.env` files as common shells and frameworks do. It does not expand variables, since a `$` in a
//! password is a `$`, and its errors name lines, never their content.

use zeroize::Zeroizing;

use crate::types::name::SecretName;

/// A line that cannot be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub(in crate::cli) struct DotenvError {
    line: usize,
    what: &'static str,
}

/// Parses names and values, in the file's order. A value is bare (up to a ` #` comment, trimmed), in single
/// quotes (literal) or in double quotes (with `\n`, `\r`, `\t`, `\"`, `\\`, `\$`). Quoted values may span
/// lines.
pub(in crate::cli) fn parse(text: &str) -> Result<Vec<(SecretName, Zeroizing<String>)>, DotenvError> {
    let mut found: Vec<(SecretName, Zeroizing<String>)> = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(found);
        }
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let bad = |what| DotenvError { line, what };
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let end = rest.find('\n').unwrap_or(rest.len());
        let (name, _) = rest[..end].split_once('=').ok_or(bad("there is no `=`"))?;
        rest = rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let name: SecretName = name.parse().map_err(|_| bad("the name is not a valid secret name"))?;
        if found.iter().any(|(other, _)| *other == name) {
            return Err(bad("the name is given twice"));
        }
        let (value, after) = match rest.chars().next() {
            Some('\'') => single(&rest[1..]).ok_or(bad("the quote is never closed"))?,
            Some('"') => double(&rest[1..]).ok_or(bad("the quote is never closed"))?,
            _ => bare(rest),
        };
        let (tail, next) = after.split_once('\n').unwrap_or((after, ""));
        let tail = tail.trim();
        if !tail.is_empty() && !tail.starts_with('#') {
            return Err(bad("something follows the closing quote"));
        }
        found.push((name, value));
        rest = next;
    }
}

fn bare(rest: &str) -> (Zeroizing<String>, &str) {
    let end = rest.find('\n').unwrap_or(rest.len());
    let (line, after) = rest.split_at(end);
    let comment = line.starts_with('#').then_some(0);
    let comment = comment.or_else(|| [line.find(" #"), line.find("\t#")].into_iter().flatten().min());
    let value = line.get(..comment.unwrap_or(line.len())).unwrap_or(line);
    (Zeroizing::new(value.trim().to_string()), after)
}

fn single(rest: &str) -> Option<(Zeroizing<String>, &str)> {
    let (value, after) = rest.split_once('\'')?;
    Some((Zeroizing::new(value.to_string()), after))
}

fn double(rest: &str) -> Option<(Zeroizing<String>, &str)> {
    // Allocated in full, so that growing leaves no copies in memory.
    let mut value = Zeroizing::new(String::with_capacity(rest.len()));
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, rest.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                plain @ ('"' | '\\' | '$' | '`') => value.push(plain),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn one(text: &str) -> String {
        pairs(text).remove(0).1
    }

    #[test]
    fn common_forms_are_parsed() {
        let text = "\u{feff}# comment\n\nA=1\r\nexport B = two words # comment\nC=\nD=a#b=c\nE='x # $Y' # c";
        let expected = [("A", "1"), ("B", "two words"), ("C", ""), ("D", "a#b=c"), ("E", "x # $Y")];
        assert_eq!(pairs(text), expected.map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn quotes_span_lines_and_double_quotes_have_escapes() {
        assert_eq!(one("K=\"-----BEGIN\\nx\n\\\"\\\\ \\$a \\d\""), "-----BEGIN\nx\n\"\\ $a \\d");
        assert_eq!(one("K='a\nb\\n'"), "a\nb\\n");
        assert_eq!(one("K=$HOME${X}"), "$HOME${X}");
    }

    #[test]
    fn error_names_line_and_not_value() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(error("A=1\n\ns3cret\n"), "line 3: there is no `=`");
        assert_eq!(error("A=\"x\ny\"\nB-C=s3cret"), "line 3: the name is not a valid secret name");
        assert_eq!(error("A=1\nA=2"), "line 2: the name is given twice");
        assert_eq!(error("A=1\nB='s3cret"), "line 2: the quote is never closed");
        assert_eq!(error("A='x's3cret"), "line 1: something follows the closing quote");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[A=\"'# \\\\\n\r\té$]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn single_quoted_value_is_literal(value in "[^']{0,60}") {
            let text = format!("A='{value}'\n");
            prop_assert_eq!(one(&text), value);
        }
    }
}
