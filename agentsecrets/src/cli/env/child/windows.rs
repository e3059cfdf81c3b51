//! Windows: the console tells the command of Ctrl+C by itself, and we outlive it.

use std::io;
use std::process::Command;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::{not_started, ours};
use crate::cli::Failure;
use crate::redact::mask::Values;

/// What takes what the console tells.
pub(in crate::cli::env) struct Signals(Runtime);

impl Signals {
    /// Makes it.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        Ok(Self(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
    }

    /// Runs `command` to its end, and gives its exit code: 125 where it is none of the first 256.
    pub(in crate::cli::env) fn run(
        self,
        command: Command,
        _: Option<Arc<Values>>,
        _: (),
    ) -> Result<u8, Failure> {
        self.0.block_on(async {
            let failed = |error: io::Error| ours("cannot look after the command", error);
            // To be told is to live on.
            let told = (tokio::signal::windows::ctrl_c(), tokio::signal::windows::ctrl_break());
            let program = command.get_program().to_owned();
            let spawned = tokio::process::Command::from(command).spawn();
            let mut child = spawned.map_err(|error| not_started(&program, &error))?;
            let status = child.wait().await.map_err(failed)?;
            drop(told);
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(125))
        })
    }
}
