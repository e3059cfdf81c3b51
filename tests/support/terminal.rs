//! A program at a terminal of its own, and the person's side of it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::process::command;

/// The program, and what the person sees.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    screen: fs::File,
    pub(crate) shown: String,
}

impl Terminal {
    /// Starts `wanted` at a new terminal.
    pub(crate) fn start(wanted: &Command) -> Self {
        let pair = nix::pty::openpty(None, None).unwrap();
        for side in [&pair.master, &pair.slave] {
            use nix::fcntl::{FcntlArg, FdFlag, fcntl};
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let mut started = command("setsid");
        started.args(["--ctty", "--wait"]).arg(wanted.get_program()).args(wanted.get_args());
        started.env_clear();
        for (name, value) in wanted.get_envs() {
            if let Some(value) = value {
                started.env(name, value);
            }
        }
        started.current_dir(wanted.get_current_dir().unwrap_or("/tmp".as_ref()));
        let side = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
        started.stdin(side(&pair.slave)).stdout(side(&pair.slave)).stderr(side(&pair.slave));
        Self { child: started.spawn().unwrap(), screen: pair.master.into(), shown: String::new() }
    }

    /// Reads the screen up to and with `end`, and forgets what came before.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &str) {
        let mut buffer = [0; 1024];
        while !self.shown.contains(end) {
            let mut ready = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            // A program that waits for something else would wait for ever.
            let shown = poll(&mut ready, PollTimeout::from(30_000_u16)).unwrap();
            assert_ne!(shown, 0, "{end:?} does not come: {}", self.shown);
            let length = self.screen.read(&mut buffer).unwrap_or_default();
            assert_ne!(length, 0, "{end:?} never came: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let at = self.shown.find(end).unwrap() + end.len();
        self.shown.drain(..at);
    }

    /// Waits until what is typed is not shown, and what was typed before is thrown away.
    #[track_caller]
    pub(crate) fn until_hidden(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while tcgetattr(&self.screen).unwrap().local_flags.contains(LocalFlags::ECHO) {
            assert!(Instant::now() < deadline, "what is typed stays in sight: {}", self.shown);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types a line.
    pub(crate) fn enter(&mut self, line: &str) {
        self.screen.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    /// Types `bytes`.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        self.screen.write_all(bytes).unwrap();
    }

    /// The exit code.
    pub(crate) fn code(self) -> Option<i32> {
        self.end().0
    }

    /// The exit code, and all that was shown since the last `until`.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        // To the end of the screen, or a full one would hold the program up.
        let mut rest = Vec::new();
        let _ = self.screen.read_to_end(&mut rest);
        self.shown.push_str(&String::from_utf8_lossy(&rest));
        (self.child.wait().unwrap().code(), self.shown)
    }
}
