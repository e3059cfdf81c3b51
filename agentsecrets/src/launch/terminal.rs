//! The person's terminal, which the agent never holds: raw while the agent's own stands in for it,
//! restored whatever happens, and relayed byte by byte.

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
pub struct Standard {
    /// Standard input.
    pub input: bool,
    /// Standard output.
    pub output: bool,
    /// Standard error.
    pub error: bool,
}

impl Standard {
    /// Asks the kernel.
    pub fn find() -> Self {
        Self {
            input: isatty(io::stdin()).unwrap_or(false),
            output: isatty(io::stdout()).unwrap_or(false),
            error: isatty(io::stderr()).unwrap_or(false),
        }
    }

    /// Whether any is.
    pub fn any(self) -> bool {
        self.input || self.output || self.error
    }

    /// The files of those that are.
    pub fn names(self) -> Vec<PathBuf> {
        let mut names = Vec::new();
        names.extend(self.input.then(|| ttyname(io::stdin()).ok()).flatten());
        names.extend(self.output.then(|| ttyname(io::stdout()).ok()).flatten());
        names.extend(self.error.then(|| ttyname(io::stderr()).ok()).flatten());
        names
    }
}

/// The person's terminal and the agent's, joined. Neither side can keep the launcher waiting.
pub struct Relay {
    person: OwnedFd,
    /// Where the person types, if that is a terminal and still open.
    input: Option<OwnedFd>,
    agent: OwnedFd,
    standard: Standard,
    /// The person's settings, while they are changed.
    before: Option<Termios>,
    /// What the agent wrote and the person's terminal has not yet taken.
    shown: Vec<u8>,
    /// What the person typed and the agent's terminal has not yet taken.
    typed: Vec<u8>,
    /// What is taken out of what is shown.
    mask: Option<Mask>,
}

impl Relay {
    /// Joins them; one of `standard` must be a terminal.
    pub fn start(standard: Standard, agent: OwnedFd) -> io::Result<Self> {
        let person = match standard {
            Standard { output: true, .. } => reopen(io::stdout(), OFlag::O_RDWR)?,
            Standard { error: true, .. } => reopen(io::stderr(), OFlag::O_RDWR)?,
            _ => reopen(io::stdin(), OFlag::O_RDWR)?,
        };
        let input = if standard.input { Some(reopen(io::stdin(), OFlag::O_RDONLY)?) } else { None };
        fcntl(&agent, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (shown, typed) = (Vec::new(), Vec::new());
        let mut relay = Self { person, input, agent, standard, before: None, shown, typed, mask: None };
        relay.resize();
        relay.take_over();
        Ok(relay)
    }

    /// Takes the values of `mask` out of what is shown.
    pub fn masking(mut self, mask: Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// How long the agent may write nothing before `pause` is due. `None`: nothing waits for it.
    pub fn patience(&self) -> Option<Duration> {
        self.mask.as_ref().filter(|_| self.shown.is_empty()).and_then(Mask::patience)
    }

    /// Shows what the mask held back, since the agent has written nothing for so long.
    pub fn pause(&mut self) {
        if let Some(mask) = &mut self.mask {
            self.shown.extend_from_slice(&mask.pause());
        }
    }

    /// What to wait for before `carry` has something to do.
    pub fn awaited(&self) -> Vec<PollFd<'_>> {
        let mut agent = PollFlags::empty();
        let mut awaited = Vec::new();
        if self.shown.is_empty() {
            agent |= PollFlags::POLLIN;
        } else {
            awaited.push(PollFd::new(self.person.as_fd(), PollFlags::POLLOUT));
        }
        if !self.typed.is_empty() {
            agent |= PollFlags::POLLOUT;
        } else if let Some(input) = self.input.as_ref().filter(|_| self.is_foreground()) {
            awaited.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        if !agent.is_empty() {
            awaited.push(PollFd::new(self.agent.as_fd(), agent));
        }
        awaited
    }

    /// Carries what can be carried without waiting. `false`: one of the terminals is closed for good.
    pub fn carry(&mut self) -> bool {
        let input = self.input.as_ref().filter(|_| self.typed.is_empty() && self.is_foreground());
        if input.is_some_and(|input| !fill(input.as_fd(), &mut self.typed)) {
            self.input = None;
        }
        let taken = empty(&mut self.typed, self.agent.as_fd());
        let open = !self.shown.is_empty() || self.hear();
        empty(&mut self.shown, self.person.as_fd()) && taken && open
    }

    /// Shows what the agent wrote before it was killed. A terminal on which nothing moves any more is not
    /// waited for long.
    pub fn drain(&mut self) {
        self.input = None;
        self.typed.clear();
        while self.carry() || !self.shown.is_empty() {
            if !matches!(poll(&mut self.awaited(), PollTimeout::from(500u16)), Ok(1..)) {
                return;
            }
        }
    }

    /// Takes what the agent wrote. `false`: there will never be more.
    fn hear(&mut self) -> bool {
        let open = fill(self.agent.as_fd(), &mut self.shown);
        if let Some(mask) = &mut self.mask {
            self.shown = mask.pass(std::mem::take(&mut self.shown)).to_vec();
            if !open {
                self.shown.extend_from_slice(&mask.finish());
            }
        }
        open
    }

    /// Makes the person's terminal raw, if its input is ours and we are in its foreground; also after
    /// the person brought us back.
    pub fn take_over(&mut self) {
        if !self.standard.input || !self.is_foreground() {
            return;
        }
        let Ok(now) = tcgetattr(io::stdin()) else { return };
        let mut raw = now.clone();
        cfmakeraw(&mut raw);
        if !(self.standard.output && self.standard.error) {
            // Something else than the agent writes there too, in the way of an ordinary program.
            raw.output_flags |= OutputFlags::OPOST;
        }
        if tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).is_ok() && self.before.is_none() {
            self.before = Some(now);
        }
    }

    /// Gives the agent's terminal the size of the person's.
    pub fn resize(&self) {
        // Without a size the agent's terminal keeps none: programs then assume one.
        let _ = terminal::size(&self.person).and_then(|size| terminal::resize(&self.agent, size));
    }

    fn is_foreground(&self) -> bool {
        // A terminal that does not control our session has no foreground.
        tcgetpgrp(&self.person).map_or(true, |group| group == getpgrp())
    }
}

impl Relay {
    /// Gives the person's terminal its settings back.
    pub fn give_back(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Opens the terminal `of` a second time, so that not to wait is our way alone, not that of the programs
/// which share it with us.
fn reopen(of: impl AsFd, how: OFlag) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", of.as_fd().as_raw_fd());
    let flags = how | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(path.as_str(), flags, Mode::empty())?)
}

/// Reads what there is into the empty `buffer`. `false`: there will never be more.
fn fill(from: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> bool {
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

/// Writes what is taken of `buffer`. `false`: nothing will ever be.
fn empty(buffer: &mut Vec<u8>, to: BorrowedFd<'_>) -> bool {
    while !buffer.is_empty() {
        match write(to, buffer) {
            Ok(taken) => drop(buffer.drain(..taken.min(buffer.len()))),
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
