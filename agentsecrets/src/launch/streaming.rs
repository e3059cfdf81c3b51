//! The process beside a service that sends its audit log on. It is as unprivileged as what serves; when it ends it
//! is started again, since agents are served either way and what was not sent is sent then.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anstream::eprintln;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long after its start it is started again at the earliest.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is to be looked after.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// It, kept going.
pub(super) struct Streaming {
    words: Vec<OsString>,
    user: Option<(u32, u32)>,
    child: Option<Child>,
    started: Option<Instant>,
}

impl Streaming {
    /// Our own program with these arguments, as this user if we are not the one that it is to be.
    pub(super) fn of(words: Vec<OsString>, user: Option<(u32, u32)>) -> Self {
        Self { words, user, child: None, started: None }
    }

    /// Starts it if it does not run, and has not just been started.
    pub(super) fn keep(&mut self) {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => eprintln!("agentsecrets: what sends the audit log on ended: {status}"),
                Err(error) => eprintln!("agentsecrets: what sends the audit log on is gone: {error}"),
            }
            self.child = None;
        }
        if self.started.is_some_and(|started| started.elapsed() < PAUSE) {
            return;
        }
        self.started = Some(Instant::now());
        let mut command = Command::new("/proc/self/exe");
        if let Some((uid, gid)) = self.user {
            // With the user our capabilities and groups go.
            command.uid(uid).gid(gid);
        }
        match command.args(&self.words).spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => eprintln!("agentsecrets: what sends the audit log on cannot be started: {error}"),
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = child.wait();
    }
}
