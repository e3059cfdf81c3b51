//! macOS: forwards signals to the command. Signals of the terminal reach it directly; they are handled here
//! only so that this process outlives it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::spawn_error::spawn_failure;
use crate::redact::mask::MaskedValues;
use crate::types::failure::{Exit, Failure};

/// The signal handlers.
pub(in crate::cli::env) struct Signals(Runtime);

impl Signals {
    /// Creates the runtime for the handlers.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        Ok(Self(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
    }

    /// Runs `command` to its end and returns its exit code.
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
            let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
            let mut hung_up = signal(SignalKind::hangup()).map_err(failed)?;
            let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut quit = signal(SignalKind::quit()).map_err(failed)?;
            let program = command.get_program().to_owned();
            let spawned = tokio::process::Command::from(command).spawn();
            let mut child = spawned.map_err(|error| spawn_failure(&program, &error))?;
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            loop {
                let passed_on = tokio::select! {
                    status = child.wait() => {
                        let status = status.map_err(failed)?;
                        let code = status.code().or(status.signal().map(|signal| 128 + signal));
                        return Ok(code.unwrap_or(125) as u8);
                    }
                    _ = terminated.recv() => Signal::SIGTERM,
                    _ = hung_up.recv() => Signal::SIGHUP,
                    _ = interrupted.recv() => continue,
                    _ = quit.recv() => continue,
                };
                // The child was not reaped, so the pid is still its own.
                pid.map(|pid| kill(Pid::from_raw(pid), passed_on));
            }
        })
    }
}
