//! A program at its own terminal, and the user's side of that terminal.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::process::command;

/// The program and its output.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    screen: fs::File,
    pub(crate) output: String,
}

impl Terminal {
    /// Starts `program` at a new terminal.
    pub(crate) fn start(program: &Command) -> Self {
        let pair = nix::pty::openpty(None, None).unwrap();
        for side in [&pair.master, &pair.slave] {
            use nix::fcntl::{FcntlArg, FdFlag, fcntl};
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let mut started = command("setsid");
        started.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        started.env_clear();
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                started.env(name, value);
            }
        }
        started.current_dir(program.get_current_dir().unwrap_or("/tmp".as_ref()));
        let side = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
        started.stdin(side(&pair.slave)).stdout(side(&pair.slave)).stderr(side(&pair.slave));
        Self { child: started.spawn().unwrap(), screen: pair.master.into(), output: String::new() }
    }

    /// Reads output up to and with `end`, and discards it.
    #[track_caller]
    pub(crate) fn read_until(&mut self, end: &str) {
        let mut buffer = [0; 1024];
        while !self.output.contains(end) {
            let mut ready = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            // A program that waits for something else would block forever.
            let shown = poll(&mut ready, PollTimeout::from(30_000_u16)).unwrap();
            assert_ne!(shown, 0, "{end:?} does not come: {}", self.output);
            let length = self.screen.read(&mut buffer).unwrap_or_default();
            assert_ne!(length, 0, "{end:?} never came: {}", self.output);
            self.output.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let at = self.output.find(end).unwrap() + end.len();
        self.output.drain(..at);
    }

    /// Waits until echo is off; earlier input has been discarded then.
    #[track_caller]
    pub(crate) fn wait_until_echo_off(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while tcgetattr(&self.screen).unwrap().local_flags.contains(LocalFlags::ECHO) {
            assert!(Instant::now() < deadline, "what is typed stays in sight: {}", self.output);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.screen.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    pub(crate) fn type_bytes(&mut self, bytes: &[u8]) {
        self.screen.write_all(bytes).unwrap();
    }

    /// Waits for the end; returns the exit code.
    pub(crate) fn code(self) -> Option<i32> {
        self.wait().0
    }

    /// Waits for the end; returns the exit code and the output since the last `read_until`.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        // Reads to the end, since a full terminal would block the program.
        let mut rest = Vec::new();
        let _ = self.screen.read_to_end(&mut rest);
        self.output.push_str(&String::from_utf8_lossy(&rest));
        (self.child.wait().unwrap().code(), self.output)
    }
}
