//! The process beside a service that sends its audit log on. It is as unprivileged as what serves; when it ends it
//! is started again, since agents are served either way and what was not sent is sent then.

use std::ffi::{OsStr, OsString};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anstream::eprintln;
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};

use super::interceptor::reap;
use crate::sys::process::{self, Person};

/// How long after its start it is started again at the earliest.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is to be looked after.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it may take to end.
const END: Duration = Duration::from_secs(2);
/// The variables that it is given, beside those of OpenTelemetry and those that say where files are.
const PASSED_ON: &[&str] = &[
    "AGENTSECRETS_HOME",
    "AGENTSECRETS_LOG",
    "AGENTSECRETS_UPSTREAM_CA",
    "HOME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

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
        command
            .args(&self.words)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)));
        let person = self.user.map(|(uid, gid)| Person {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: Vec::new(),
        });
        // It ends when its input does: we may have no right to signal another user's process.
        command.arg("--until-input-ends").stdin(Stdio::piped());
        // Whatever of our signals is blocked, it hears its own.
        process::bring_up(&mut command, SigSet::empty(), None, person);
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => eprintln!("agentsecrets: what sends the audit log on cannot be started: {error}"),
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
            reap(child, END);
        }
    }
}

/// What it needs of our environment: not what stores of secrets are opened by.
fn is_passed_on(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    PASSED_ON.contains(&&*name) || name.starts_with("OTEL_") || name.starts_with("XDG_")
}
