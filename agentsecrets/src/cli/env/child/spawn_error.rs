//! The failure of a command that does not start.

use std::ffi::OsStr;
use std::io;

use crate::sys::files;
use crate::types::failure::{Exit, Failure};

/// The failure for the error with which `program` did not start; its exit code is a shell's.
pub(super) fn spawn_failure(program: &OsStr, error: &io::Error) -> Failure {
    let what = format!("{}: {error}", program.to_string_lossy());
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NoCommand, what),
        io::ErrorKind::PermissionDenied if !files::is_visible(program) => Failure::new(Exit::NoCommand, what),
        io::ErrorKind::ArgumentListTooLong => {
            Failure::new(Exit::OwnFailure, what).hint("choose fewer secrets with --only")
        }
        io::ErrorKind::Interrupted | io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => {
            Failure::new(Exit::OwnFailure, what)
        }
        _ => Failure::new(Exit::NotExecutable, what),
    }
}
