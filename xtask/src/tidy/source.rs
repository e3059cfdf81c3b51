//! Rust files as the checks see them: their text, and their text with comments and literals blanked
//! out, so that a word in a string is not mistaken for code.

use std::path::Path;

use anyhow::{Context, Result};

/// A Rust file.
pub(crate) struct Source {
    /// Its path from the workspace's top, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its text with every comment, string and character blanked; lines stay where they are.
    pub(crate) code: String,
}

impl Source {
    /// A file with this path and text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: blank(text) }
    }

    /// The line number, from 1, of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.code.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// Every Rust file that is under version control's eyes: all but build output and dot folders.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let shown = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                sources.push(Source::new(&shown, &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// Replaces comments and literals with spaces, keeping every line break and byte offset.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(first) = bytes.get(at) else { break };
        let after_word = at > 0 && bytes.get(at - 1).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let skipped = match first {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => block_comment(rest),
            b'"' => string(rest),
            b'r' | b'b' | b'c' if !after_word => raw_string(rest),
            b'\'' => character(rest),
            _ => 0,
        };
        let step = skipped.max(rest.chars().next().map_or(1, char::len_utf8));
        for byte in bytes.iter().skip(at).take(step) {
            out.push(if *byte == b'\n' || (skipped == 0 && byte.is_ascii()) { *byte } else { b' ' });
        }
        at += step;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The length of the block comment that starts `rest`; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(tail) = rest.as_bytes().get(at..).filter(|tail| !tail.is_empty()) {
        match tail {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of the string that starts `rest`.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the raw string (`r"…"`, `br#"…"#`) that starts `rest`, or 0 if it is none.
fn raw_string(rest: &str) -> usize {
    let bare = rest.trim_start_matches(['b', 'c']);
    let Some(bare) = bare.strip_prefix('r') else { return 0 };
    let hashes = bare.len() - bare.trim_start_matches('#').len();
    let prefix = rest.len() - bare.len() + hashes + 1;
    if bare.as_bytes().get(hashes) != Some(&b'"') || prefix > hashes + 3 {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest.get(prefix..).and_then(|body| body.find(&end)).map_or(rest.len(), |at| prefix + at + end.len())
}

/// The length of the character literal that starts `rest`, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest.get(3..).and_then(|tail| tail.find('\'')).map_or(0, |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_comments_and_literals_are_not_code() {
        let text = "a /* x /* y */ x */ b // x\nlet s = \"x \\\" x\"; let r = r#\"x \" x\"#; 'y'; '\\''; é\n";
        let code = blank(text);
        assert!(!code.contains('x') && !code.contains('y'), "{code}");
        assert!(code.contains("let s =") && code.contains("let r ="));
        assert_eq!(code.len(), text.len());
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(blank("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(blank("br\"x\"; bar"), "     ; bar");
    }
}
