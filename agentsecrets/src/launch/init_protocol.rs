//! The protocol between the agent's init process and the launcher.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::privsep::{Channel, Limits};

/// Messages of the init process to the launcher.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InitReport {
    /// Carries the master of the agent's pseudo-terminal.
    Terminal,
    Started,
    /// The command was not started.
    Failed {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        error: String,
    },
    /// The command ended with this exit code.
    Ended(u8),
}

/// Longer than any message: texts are cut.
const MAX_MESSAGE_LENGTH: usize = 4096;
const LIMITS: Limits = Limits { length: MAX_MESSAGE_LENGTH, descriptors: 1 };

/// The ends of the launcher and of the init process.
pub(super) fn channel() -> io::Result<(Channel, Channel)> {
    Channel::pair(LIMITS)
}

pub(super) fn send(channel: &Channel, report: &InitReport) -> io::Result<()> {
    channel.send_json(report, &[])
}

pub(super) fn send_terminal(channel: &Channel, terminal: &OwnedFd) -> io::Result<()> {
    channel.send_json(&InitReport::Terminal, &[terminal.as_fd()])
}

/// Receives the next report; `None` if the init process is gone.
pub(super) fn recv(channel: &Channel) -> io::Result<Option<(InitReport, Option<OwnedFd>)>> {
    let received = channel.recv_json()?;
    Ok(received.map(|(report, mut message)| (report, message.descriptors.pop())))
}

/// Asks the init process to forward `signal` to the command.
pub(super) fn send_signal(channel: &Channel, signal: Signal) -> io::Result<()> {
    channel.send(&[signal as u8], &[])
}

/// Receives the signal to forward; `None` if the launcher is gone.
pub(super) fn recv_signal(channel: &Channel) -> io::Result<Option<Signal>> {
    let Some(message) = channel.recv()? else { return Ok(None) };
    let signal = message.body.first().copied().unwrap_or_default();
    Ok(Some(Signal::try_from(i32::from(signal))?))
}

/// A failure before the command runs, cut to the length of a message.
pub(super) fn failed_report(exit: u8, error: impl ToString) -> InitReport {
    // JSON needs at most six bytes for one byte of text.
    InitReport::Failed { exit, error: error.to_string().chars().take(MAX_MESSAGE_LENGTH / 8).collect() }
}
