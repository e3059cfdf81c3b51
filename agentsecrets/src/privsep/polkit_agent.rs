//! polkit's own agent for terminals, beside a client that waits: it is asked where the person's desktop has none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, pipe2};

use crate::sys::process;

/// The program.
const PROGRAM: &str = "/usr/bin/pkttyagent";
/// Variables that name a desktop.
const DESKTOPS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];
/// How long it may take to register, in milliseconds.
const PATIENCE: u16 = 5000;

/// The agent. Dropping it ends it.
pub struct TextAgent(Child);

impl TextAgent {
    /// Starts it for this process, and returns once polkit knows it. `None`: there is no terminal, or no agent.
    pub fn start() -> Option<Self> {
        File::open("/dev/tty").ok()?;
        Self::registered().ok()
    }

    fn registered() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = Command::new(PROGRAM);
        command.args(["--notify-fd", &write.as_raw_fd().to_string()]);
        // After the desktop's own, where there is one. polkit finds no such agent outside of a login session.
        if DESKTOPS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
            command.arg("--fallback");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::bring_up(&mut command, SigSet::empty(), None, None);
        let agent = Self(command.spawn()?);
        drop(write);
        // It closes its end when it has registered, and when it ends because it could not.
        poll(&mut [PollFd::new(read.as_fd(), PollFlags::POLLIN)], PATIENCE)?;
        Ok(agent)
    }
}

impl Drop for TextAgent {
    fn drop(&mut self) {
        // By SIGTERM, or a terminal that it had made quiet would stay so.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
