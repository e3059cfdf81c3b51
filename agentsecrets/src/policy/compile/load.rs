//! Reads a policy file and compiles it. All mistakes are reported at once, each with its line. A file with a
//! mistake yields no policy at all: enforcing half of it could allow more than its author meant.

use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::agents::{compile_policy, empty_policy};
use super::schema;
use crate::policy::load_error::{LoadError, Problem};
use crate::policy::rules::Policy;

/// The largest file that is read, in bytes.
const MAX_FILE_SIZE: u64 = 4 << 20;

impl Policy {
    /// Loads the policy at `path`. A missing file is an empty policy that denies everything, with a warning.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        match read_file(path)? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::for_missing_file(path)),
        }
    }

    /// Compiles `text`, which was read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LoadError> {
        let invalid = |problems| LoadError::Invalid { path: path.to_path_buf(), problems };
        let file: schema::File = Self::parse_yaml(text, path)?;
        compile_policy(&file, path).map_err(invalid)
    }

    /// The policy for a missing file: everything is denied.
    pub(in crate::policy) fn for_missing_file(path: &Path) -> Self {
        empty_policy(path)
    }

    /// Deserializes `text` without compiling it.
    pub(in crate::policy) fn parse_yaml<T: DeserializeOwned>(
        text: &str,
        path: &Path,
    ) -> Result<T, LoadError> {
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        serde_yaml::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            let problems = vec![Problem { line, message: yaml_error_message(&error.to_string()) }];
            LoadError::Invalid { path: path.to_path_buf(), problems }
        })
    }
}

/// The text of the file at `path`, or `None` if there is no such file.
pub(crate) fn read_file(path: &Path) -> Result<Option<String>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
    let file = match crate::sys::files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(unreadable(io::Error::other("it is larger than 4 MiB")));
    }
    Ok(Some(text))
}

/// Rewrites a message of the YAML parser in the terms of the manual: it says what is allowed, and has no
/// location (the caller prints it first) and no control characters of the file.
pub(crate) fn yaml_error_message(message: &str) -> String {
    let message = message.split_once(" at line ").map_or(message, |(before, _)| before);
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let rewritten = [
        ("invalid boolean", "write true or false"),
        ("expected sequence start", "a list belongs here, such as [a, b]"),
        ("unexpected sequence", "a single value belongs here, not a list"),
        ("expected string scalar", "text belongs here, not a list or keys"),
        ("expected mapping start", "keys and values belong here, such as { key: value }"),
        ("invalid u16", "a port belongs here: a number from 1 to 65535"),
        ("invalid u32", "a number from 0 to 4294967295 belongs here"),
        (
            "alias references unknown anchor",
            "text that starts with '*' must be quoted, such as \"*.example.com\"",
        ),
        ("unexpected end of input", "the file ends too early; it begins with 'version: 1'"),
    ];
    if let Some(key) = message.strip_prefix("duplicate mapping key: ") {
        let key = key.split_once(", set ").map_or(key, |(key, _)| key);
        return format!("the key '{key}' stands twice");
    }
    let found = rewritten.iter().find(|(original, _)| message.starts_with(original));
    found.map_or(message, |(_, rewritten)| (*rewritten).to_owned())
}
