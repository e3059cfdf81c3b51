//! macOS: signals meant for the command are passed on. What the terminal sends reaches it by itself, and is
//! taken here only so that we outlive it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::super::{not_started, ours};
use crate::cli::Failure;
use crate::redact::mask::Values;

/// What takes the signals.
pub(in crate::cli::env) struct Signals(Runtime);

impl Signals {
    /// Makes it.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        Ok(Self(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
    }

    /// Runs `command` to its end, and gives its exit code.
    pub(in crate::cli::env) fn run(
        self,
        command: Command,
        _: Option<Arc<Values>>,
        _: (),
    ) -> Result<u8, Failure> {
        self.0.block_on(async {
            let failed = |error: io::Error| ours("cannot look after the command", error);
            let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
            let mut hung_up = signal(SignalKind::hangup()).map_err(failed)?;
            let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut quit = signal(SignalKind::quit()).map_err(failed)?;
            let program = command.get_program().to_owned();
            let spawned = tokio::process::Command::from(command).spawn();
            let mut child = spawned.map_err(|error| not_started(&program, &error))?;
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
                // It has not been waited for: the id is still its own.
                pid.map(|pid| kill(Pid::from_raw(pid), passed_on));
            }
        })
    }
}
