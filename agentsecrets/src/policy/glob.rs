//! Glob patterns over names with `/` as separator: paths of requests, programs and cgroups.

use globset::{Glob, GlobBuilder};

use crate::types::printable::excerpt;

/// Parses a glob: `*` and `?` match within a segment, `**` is a whole segment and matches any number of them,
/// `{a,b}` chooses.
pub(crate) fn parse_glob(text: &str) -> Result<Glob, String> {
    let error = |reason: &str| format!("'{}' is not a usable pattern: {reason}", excerpt(text));
    if !text.starts_with('/') {
        return Err(error("it must start with '/'; '/**' is everything"));
    }
    if text.contains(['[', ']', '\\']) {
        // A class such as [!a] or [+-9] would cross '/'.
        return Err(error("allowed are '*', '?', '{a,b}', and '**' as a whole segment"));
    }
    if text.split('/').any(|segment| segment.contains("**") && segment != "**") {
        return Err(error("'**' must be a whole segment, as in '/v1/**'"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains("//") {
        return Err(error("normalized paths have no '//', '.' or '..'"));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
    glob.map_err(|cause| error(&cause.kind().to_string()))
}

/// Whether a path from the kernel is absolute and has no `..`.
pub(crate) fn is_canonical_path(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}
