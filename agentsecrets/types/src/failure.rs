//! Errors of commands: the failure, a hint, and an exit code that scripts can rely on.

use std::fmt::Display;
use std::process::ExitCode;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

/// The exit codes, which are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The named object does not exist.
    NotFound = 3,
    /// Policy says no.
    Denied = 4,
    /// The store is locked or missing.
    Locked = 5,
    /// The daemon does not answer.
    Unreachable = 6,
    /// `run` and `env`: our own failure, not the child's.
    OwnFailure = 125,
    /// `run` and `env`: the command cannot be executed.
    NotExecutable = 126,
    /// `run` and `env`: there is no such command.
    NoCommand = 127,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), hint: None }
    }

    /// The failure for `error`, with the general exit code.
    pub fn from_error(error: impl Display) -> Self {
        Self::new(Exit::Failure, error)
    }

    /// Adds what to do about it: a sentence or a command.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with another exit code.
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The failure.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The hint.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Says it on stderr and yields the exit code.
    pub fn report(&self) -> ExitCode {
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let bold = Style::new().bold();
        eprintln!("{red}error:{red:#} {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("{bold}hint:{bold:#} {hint}");
        }
        ExitCode::from(self.exit as u8)
    }
}

/// Turns an error into a [`Failure`] whose message is `context: error`.
pub trait ErrorContext<T> {
    /// Adds `context`; the exit code is the general one.
    fn context(self, context: impl Display) -> Result<T, Failure>;

    /// Adds `context`, with an exit code of its own.
    fn context_with_exit(self, exit: Exit, context: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> ErrorContext<T> for Result<T, E> {
    fn context(self, context: impl Display) -> Result<T, Failure> {
        self.context_with_exit(Exit::Failure, context)
    }

    fn context_with_exit(self, exit: Exit, context: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, format!("{context}: {error}")))
    }
}
