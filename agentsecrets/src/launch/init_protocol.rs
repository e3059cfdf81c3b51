//! What the agent's first process and the launcher tell each other, on a packet socket between them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::sys::terminal;

/// From the agent's first process to the launcher.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The other side of the agent's own terminal comes with this message.
    Terminal,
    /// The command runs.
    Started,
    /// The command was not started.
    Failed {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        /// What happened.
        what: String,
    },
    /// The command ended, with this exit code.
    Ended(u8),
}

/// Longer than any message: texts are cut.
const LONGEST: usize = 4096;

/// Sends `report`, with a descriptor if one is given.
pub fn send(socket: impl AsFd, report: &Report, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    terminal::send(socket, &serde_json::to_vec(report)?, descriptor)
}

/// The next report. `None`: the process is gone.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let mut buffer = [0; LONGEST];
    let (length, descriptor) = terminal::receive(socket, &mut buffer)?;
    match buffer.get(..length) {
        None | Some([]) => Ok(None),
        Some(bytes) => Ok(Some((serde_json::from_slice(bytes)?, descriptor))),
    }
}

/// Asks the agent's first process to pass `signal` on to the command.
pub fn pass_on(socket: impl AsFd, signal: Signal) -> io::Result<()> {
    terminal::send(socket, &[signal as u8], None)
}

/// The signal that the launcher wants passed on. `None`: the launcher is gone.
pub fn to_pass_on(socket: impl AsFd) -> io::Result<Option<Signal>> {
    let mut buffer = [0];
    match terminal::receive(socket, &mut buffer)? {
        (0, _) => Ok(None),
        _ => Ok(Some(Signal::try_from(i32::from(buffer[0]))?)),
    }
}

/// A failure before the command, cut to what fits into a message.
pub fn failed(exit: u8, what: impl ToString) -> Report {
    // Six bytes is the most that JSON makes of one character's byte.
    Report::Failed { exit, what: what.to_string().chars().take(LONGEST / 8).collect() }
}
