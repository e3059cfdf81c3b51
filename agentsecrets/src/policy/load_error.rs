//! The reasons why a file is not a valid policy, each with its line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error or warning at one line of the file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The line, from 1, or 0 if unknown.
    pub line: u64,
    /// The mistake, and the allowed values.
    pub message: String,
}

/// The reason why a policy cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is invalid.
    #[error("{}", ProblemList(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistakes, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
}

impl LoadError {
    /// The mistakes, if the file could be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            LoadError::Invalid { problems, .. } => problems,
            LoadError::Unreadable { .. } => &[],
        }
    }
}

struct ProblemList<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for ProblemList<'_> {
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
