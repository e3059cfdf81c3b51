//! Which programs `exe:` names. Windows writes paths with drives and backslashes, and takes `A` for `a`: there
//! `C:\Tools\agent.exe` is compared as `/C:/Tools/agent.exe` is, whatever its case.

use std::borrow::Cow;

use globset::{GlobBuilder, GlobMatcher};

use super::matching::{self, is_plain};

/// Reads the pattern behind `exe:`.
pub(super) fn glob(text: &str) -> Result<GlobMatcher, String> {
    read(text, cfg!(windows))
}

/// Whether the program at `path` is one of those.
pub(super) fn holds(glob: &GlobMatcher, path: &str) -> bool {
    is_one(glob, path, cfg!(windows))
}

fn read(text: &str, windows: bool) -> Result<GlobMatcher, String> {
    let glob = matching::glob(&spelled(text, windows))?;
    if !windows {
        return Ok(glob.compile_matcher());
    }
    let mut blind = GlobBuilder::new(glob.glob());
    let blind = blind.literal_separator(true).backslash_escape(false).case_insensitive(true).build();
    blind.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn is_one(glob: &GlobMatcher, path: &str, windows: bool) -> bool {
    let path = spelled(path, windows);
    is_plain(&path) && glob.is_match(&*path)
}

/// A path that begins with a drive, as one that begins with a slash; any other is left as it is.
fn spelled(path: &str, windows: bool) -> Cow<'_, str> {
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
    fn programs_of_windows_are_named_as_windows_writes_them() {
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
            assert!(is_one(&read(text, true).unwrap(), path, true), "{text}");
        }
        for text in [r"D:\**", r"C:\Program Files\*", r"C:\Program Files (x86)\**", "/Program Files/**"] {
            assert!(!is_one(&read(text, true).unwrap(), path, true), "{text}");
        }
        for bad in ["agent.exe", r"\Tools\agent.exe", r"C:agent.exe", r"\\host\share\agent.exe", r"C:\a\..\b"]
        {
            assert!(read(bad, true).is_err(), "{bad}");
        }
        // Nor does a path that leads elsewhere than it says, nor one of another machine.
        for path in [r"C:\Program Files\..\x.exe", r"\\host\share\agent.exe", ""] {
            assert!(!is_one(&read("/**", true).unwrap(), path, true), "{path}");
        }
    }

    #[test]
    fn elsewhere_case_counts_and_a_backslash_is_no_separator() {
        assert!(read(r"C:\Tools\agent.exe", false).is_err());
        let glob = read("/usr/bin/**", false).unwrap();
        assert!(is_one(&glob, "/usr/bin/python3", false) && !is_one(&glob, "/USR/bin/python3", false));
    }
}
