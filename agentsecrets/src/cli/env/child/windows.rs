//! Windows: the console sends Ctrl+C to the command directly; this process outlives it.

use std::io;
use std::process::Command;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::spawn_error::spawn_failure;
use crate::redact::mask::MaskedValues;
use crate::types::failure::{Exit, Failure};

/// The handlers of console events.
pub(in crate::cli::env) struct Signals(Runtime);

impl Signals {
    /// Creates the runtime for the handlers.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        Ok(Self(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
    }

    /// Runs `command` to its end and returns its exit code, or 125 if it is larger than 255.
    pub(in crate::cli::env) fn run(
        self,
        command: Command,
        _: Option<Arc<MaskedValues>>,
        _: (),
    ) -> Result<u8, Failure> {
        self.0.block_on(async {
            let failed = |error: io::Error| {
                Failure::new(Exit::OwnFailure, format!("cannot look after the command: {error}"))
            };
            // A handler keeps the event from ending this process.
            let handlers = (tokio::signal::windows::ctrl_c(), tokio::signal::windows::ctrl_break());
            let program = command.get_program().to_owned();
            let spawned = tokio::process::Command::from(command).spawn();
            let mut child = spawned.map_err(|error| spawn_failure(&program, &error))?;
            let status = child.wait().await.map_err(failed)?;
            drop(handlers);
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(125))
        })
    }
}
