//! Patterns of `match.exe`. Windows paths have drives and backslashes and ignore case: `C:\Tools\agent.exe`
//! is compared as `/C:/Tools/agent.exe`, in any case.

use std::borrow::Cow;

use globset::{GlobBuilder, GlobMatcher};

use super::glob::{is_canonical_path, parse_glob};

/// Parses a pattern of this system.
pub(super) fn parse(text: &str) -> Result<GlobMatcher, String> {
    parse_for(text, cfg!(windows))
}

/// Whether the program at `path` matches `glob`, by the rules of this system.
pub(super) fn matches(glob: &GlobMatcher, path: &str) -> bool {
    matches_for(glob, path, cfg!(windows))
}

fn parse_for(text: &str, windows: bool) -> Result<GlobMatcher, String> {
    let glob = parse_glob(&normalize(text, windows))?;
    if !windows {
        return Ok(glob.compile_matcher());
    }
    let mut builder = GlobBuilder::new(glob.glob());
    let glob = builder.literal_separator(true).backslash_escape(false).case_insensitive(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn matches_for(glob: &GlobMatcher, path: &str, windows: bool) -> bool {
    let path = normalize(path, windows);
    is_canonical_path(&path) && glob.is_match(&*path)
}

/// Rewrites a path that begins with a drive to begin with a slash. Other paths stay as they are.
fn normalize(path: &str, windows: bool) -> Cow<'_, str> {
    match path.as_bytes() {
        [drive, b':', b'\\' | b'/', ..] if windows && drive.is_ascii_alphabetic() => {
            format!("/{}", path.replace('\\', "/")).into()
        }
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_paths_match_windows_patterns() {
        let path = r"C:\Program Files\Agent\agent.exe";
        for text in [
            path,
            r"c:\program files\agent\AGENT.EXE",
            "C:/Program Files/Agent/agent.exe",
            "/c:/Program Files/**",
            r"C:\Program Files\*\agent.exe",
            r"C:\**",
            "/**",
        ] {
            assert!(matches_for(&parse_for(text, true).unwrap(), path, true), "{text}");
        }
        for text in [r"D:\**", r"C:\Program Files\*", r"C:\Program Files (x86)\**", "/Program Files/**"] {
            assert!(!matches_for(&parse_for(text, true).unwrap(), path, true), "{text}");
        }
        for bad in ["agent.exe", r"\Tools\agent.exe", r"C:agent.exe", r"\\host\share\agent.exe", r"C:\a\..\b"]
        {
            assert!(parse_for(bad, true).is_err(), "{bad}");
        }
        // Neither a path with `..` nor one of another machine matches.
        for path in [r"C:\Program Files\..\x.exe", r"\\host\share\agent.exe", ""] {
            assert!(!matches_for(&parse_for("/**", true).unwrap(), path, true), "{path}");
        }
    }

    #[test]
    fn unix_paths_are_case_sensitive_without_backslashes() {
        assert!(parse_for(r"C:\Tools\agent.exe", false).is_err());
        let glob = parse_for("/usr/bin/**", false).unwrap();
        assert!(
            matches_for(&glob, "/usr/bin/python3", false) && !matches_for(&glob, "/USR/bin/python3", false)
        );
    }
}
