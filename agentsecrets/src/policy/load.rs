//! From a file to a policy. All mistakes that can be seen at once are told at once, each with its line; a
//! file with a mistake yields no policy at all, since half of what a person wrote is not what they meant.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::rules::Policy;
use crate::policy::compile;
use crate::policy::referenced_files::Sources;
use crate::policy::schema;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// Something about one line of the file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The line, from 1; 0 where no line can be named.
    pub line: u64,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has mistakes.
    #[error("{}", Lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistakes, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
}

impl Policy {
    /// Reads the policy at `path`. Where there is no file the policy is empty: everything is denied, and
    /// a warning says why.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        match read(path)? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::absent(path)),
        }
    }

    /// Reads a policy from `text`, which came from the file `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LoadError> {
        let invalid = |problems| LoadError::Invalid { path: path.to_path_buf(), problems };
        let file: schema::File = Self::written(text, path)?;
        compile::policy(&file, file_name(path), Sources::beside(path)).map_err(invalid)
    }

    /// What stands in `text`, whatever it means.
    pub(super) fn written<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, LoadError> {
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        serde_yaml::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            let problems = vec![Problem { line, message: plainly(&error.to_string()) }];
            LoadError::Invalid { path: path.to_path_buf(), problems }
        })
    }

    /// The policy where there is no file.
    pub(super) fn absent(path: &Path) -> Self {
        let message = format!("there is no {}, so everything is denied", path.display());
        Self { file: file_name(path), warnings: vec![Problem { line: 0, message }], ..Self::default() }
    }
}

impl LoadError {
    /// The mistakes with their lines, where the file could be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            LoadError::Invalid { problems, .. } => problems,
            LoadError::Unreadable { .. } => &[],
        }
    }
}

/// The text at `path`, or `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
    let file = match crate::sys::files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST {
        return Err(unreadable(io::Error::other("it is larger than 4 MiB")));
    }
    Ok(Some(text))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A message of the YAML reader in the words of the manual: without the place that it ends in, which stands
/// before ours, without control characters of the file's, and with what is allowed.
pub(crate) fn plainly(message: &str) -> String {
    let message = message.split_once(" at line ").map_or(message, |(before, _)| before);
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let allowed = [
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
    let known = allowed.iter().find(|(theirs, _)| message.starts_with(theirs));
    known.map_or(message, |(_, ours)| (*ours).to_owned())
}

struct Lines<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Problem { line, message }) in self.1.iter().enumerate() {
            let start = if number == 0 { "" } else { "\n" };
            match line {
                0 => write!(f, "{start}{}: {message}", self.0.display())?,
                line => write!(f, "{start}{}:{line}: {message}", self.0.display())?,
            }
        }
        Ok(())
    }
}
