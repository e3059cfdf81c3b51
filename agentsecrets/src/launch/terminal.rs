//! Relays the caller's terminal, which the agent never holds, to the agent's pseudo-terminal. The caller's
//! terminal is raw meanwhile, and restored in every case.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, isatty, read, tcgetpgrp, ttyname, write};

use crate::redact::mask::Mask;
use crate::sys::terminal;

/// Which of the standard descriptors are terminals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StdioTerminals {
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) error: bool,
}

impl StdioTerminals {
    pub(crate) fn detect() -> Self {
        Self {
            input: isatty(io::stdin()).unwrap_or(false),
            output: isatty(io::stdout()).unwrap_or(false),
            error: isatty(io::stderr()).unwrap_or(false),
        }
    }

    pub(crate) fn has_any(self) -> bool {
        self.input || self.output || self.error
    }

    /// The terminals' device files.
    pub(crate) fn paths(self) -> Vec<PathBuf> {
        let mut names = Vec::new();
        names.extend(self.input.then(|| ttyname(io::stdin()).ok()).flatten());
        names.extend(self.output.then(|| ttyname(io::stdout()).ok()).flatten());
        names.extend(self.error.then(|| ttyname(io::stderr()).ok()).flatten());
        names
    }
}

/// A relay between the caller's terminal and the agent's. Neither side can block the launcher.
pub(crate) struct TerminalRelay {
    caller: OwnedFd,
    /// The caller's input, if it is a terminal and still open.
    input: Option<OwnedFd>,
    agent: OwnedFd,
    standard: StdioTerminals,
    /// The caller's settings, while they are changed.
    saved_settings: Option<Termios>,
    /// Written by the agent and not yet by us to the caller's terminal.
    output_buffer: Vec<u8>,
    /// Typed by the caller and not yet written to the agent's terminal.
    input_buffer: Vec<u8>,
    /// Secret values to remove from the output.
    mask: Option<Mask>,
}

impl TerminalRelay {
    /// Starts the relay; one of `standard` must be a terminal.
    pub(crate) fn start(standard: StdioTerminals, agent: OwnedFd) -> io::Result<Self> {
        let person = match standard {
            StdioTerminals { output: true, .. } => reopen(io::stdout(), OFlag::O_RDWR)?,
            StdioTerminals { error: true, .. } => reopen(io::stderr(), OFlag::O_RDWR)?,
            _ => reopen(io::stdin(), OFlag::O_RDWR)?,
        };
        let input = if standard.input { Some(reopen(io::stdin(), OFlag::O_RDONLY)?) } else { None };
        fcntl(&agent, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (output_buffer, input_buffer) = (Vec::new(), Vec::new());
        let mut relay = Self {
            caller: person,
            input,
            agent,
            standard,
            saved_settings: None,
            output_buffer,
            input_buffer,
            mask: None,
        };
        relay.resize();
        relay.set_raw();
        Ok(relay)
    }

    /// Removes the values of `mask` from the output.
    pub(crate) fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// The silence of the agent after which `flush_held` is due; `None` if nothing is held.
    pub(crate) fn hold_timeout(&self) -> Option<Duration> {
        self.mask.as_ref().filter(|_| self.output_buffer.is_empty()).and_then(Mask::timeout)
    }

    /// Writes the bytes that the mask held back, after that silence.
    pub(crate) fn flush_held(&mut self) {
        if let Some(mask) = &mut self.mask {
            self.output_buffer.extend_from_slice(&mask.pause());
        }
    }

    /// Descriptors to poll before the next `transfer`.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut agent = PollFlags::empty();
        let mut fds = Vec::new();
        if self.output_buffer.is_empty() {
            agent |= PollFlags::POLLIN;
        } else {
            fds.push(PollFd::new(self.caller.as_fd(), PollFlags::POLLOUT));
        }
        if !self.input_buffer.is_empty() {
            agent |= PollFlags::POLLOUT;
        } else if let Some(input) = self.input.as_ref().filter(|_| self.is_foreground()) {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        if !agent.is_empty() {
            fds.push(PollFd::new(self.agent.as_fd(), agent));
        }
        fds
    }

    /// Transfers all bytes that can be transferred without blocking. `false`: one of the terminals is closed.
    pub(crate) fn transfer(&mut self) -> bool {
        let input = self.input.as_ref().filter(|_| self.input_buffer.is_empty() && self.is_foreground());
        if input.is_some_and(|input| !read_into(input.as_fd(), &mut self.input_buffer)) {
            self.input = None;
        }
        let is_agent_open = write_from(&mut self.input_buffer, self.agent.as_fd());
        let is_open = !self.output_buffer.is_empty() || self.read_agent();
        write_from(&mut self.output_buffer, self.caller.as_fd()) && is_agent_open && is_open
    }

    /// Writes the rest of a killed agent's output. It gives up on a blocked terminal soon.
    pub(crate) fn drain(&mut self) {
        self.input = None;
        self.input_buffer.clear();
        while self.transfer() || !self.output_buffer.is_empty() {
            if !matches!(poll(&mut self.poll_fds(), PollTimeout::from(500u16)), Ok(1..)) {
                return;
            }
        }
    }

    /// Reads the agent's output. `false`: there will be no more.
    fn read_agent(&mut self) -> bool {
        let is_open = read_into(self.agent.as_fd(), &mut self.output_buffer);
        if let Some(mask) = &mut self.mask {
            self.output_buffer = mask.push(std::mem::take(&mut self.output_buffer)).to_vec();
            if !is_open {
                self.output_buffer.extend_from_slice(&mask.finish());
            }
        }
        is_open
    }

    /// Makes the caller's terminal raw, if its input is ours and we are in its foreground; also after
    /// SIGCONT.
    pub(crate) fn set_raw(&mut self) {
        if !self.standard.input || !self.is_foreground() {
            return;
        }
        let Ok(now) = tcgetattr(io::stdin()) else { return };
        let mut raw = now.clone();
        cfmakeraw(&mut raw);
        if !(self.standard.output && self.standard.error) {
            // Output that does not come from the agent needs ordinary processing.
            raw.output_flags |= OutputFlags::OPOST;
        }
        if tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).is_ok() && self.saved_settings.is_none() {
            self.saved_settings = Some(now);
        }
    }

    /// Copies the size of the caller's terminal to the agent's.
    pub(crate) fn resize(&self) {
        // Without a size the agent's terminal keeps none: programs then assume one.
        let _ = terminal::size(&self.caller).and_then(|size| terminal::resize(&self.agent, size));
    }

    fn is_foreground(&self) -> bool {
        // A terminal that does not control our session has no foreground.
        tcgetpgrp(&self.caller).map_or(true, |group| group == getpgrp())
    }
}

impl TerminalRelay {
    /// Restores the caller's settings.
    pub(crate) fn restore(&mut self) {
        if let Some(before) = &self.saved_settings {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

impl Drop for TerminalRelay {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Opens the terminal `of` a second time, so that only our descriptor is non-blocking and not that of
/// programs which share it.
fn reopen(of: impl AsFd, how: OFlag) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", of.as_fd().as_raw_fd());
    let flags = how | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(path.as_str(), flags, Mode::empty())?)
}

/// Reads available bytes into the empty `buffer`. `false`: there will be no more.
fn read_into(from: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 16 << 10];
    match read(from, &mut bytes) {
        Err(Errno::EINTR | Errno::EAGAIN) => true,
        Err(_) | Ok(0) => false,
        Ok(length) => {
            buffer.extend_from_slice(bytes.get(..length).unwrap_or_default());
            true
        }
    }
}

/// Writes as much of `buffer` as fits. `false`: the other side is closed.
fn write_from(buffer: &mut Vec<u8>, to: BorrowedFd<'_>) -> bool {
    while !buffer.is_empty() {
        match write(to, buffer) {
            Ok(written) => drop(buffer.drain(..written.min(buffer.len()))),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return true,
            Err(_) => {
                buffer.clear();
                return false;
            }
        }
    }
    true
}
