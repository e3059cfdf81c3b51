//! Supervises the audit exporter, a process beside a service. It is as unprivileged as the interceptor. It is
//! restarted when it ends: agents are served meanwhile, and unsent records are sent then.

use std::ffi::{OsStr, OsString};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anstream::eprintln;
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};

use super::interceptor::kill_after;
use crate::sys::process::{self, ProcessUser};

/// Minimum time between two starts.
const RESTART_DELAY: Duration = Duration::from_secs(5);
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Variables that it inherits, besides those of OpenTelemetry and XDG.
const INHERITED_VARIABLES: &[&str] = &[
    "AGENTSECRETS_HOME",
    "AGENTSECRETS_LOG",
    "AGENTSECRETS_UPSTREAM_CA",
    "HOME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// The exporter and its restarts.
pub(super) struct AuditExporter {
    arguments: Vec<OsString>,
    user: Option<(u32, u32)>,
    child: Option<Child>,
    started: Option<Instant>,
}

impl AuditExporter {
    /// Runs our own program with `arguments`; as `user`, if that is not the current user.
    pub(super) fn new(arguments: Vec<OsString>, user: Option<(u32, u32)>) -> Self {
        Self { arguments, user, child: None, started: None }
    }

    /// Starts it if it does not run and was not started just now.
    pub(super) fn ensure_running(&mut self) {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => eprintln!("agentsecrets: the audit exporter ended: {status}"),
                Err(error) => eprintln!("agentsecrets: the audit exporter is gone: {error}"),
            }
            self.child = None;
        }
        if self.started.is_some_and(|started| started.elapsed() < RESTART_DELAY) {
            return;
        }
        self.started = Some(Instant::now());
        let mut command = Command::new("/proc/self/exe");
        command
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)));
        let person = self.user.map(|(uid, gid)| ProcessUser {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: Vec::new(),
        });
        // It ends when its input closes: we may have no right to signal another user's process.
        command.arg("--until-input-ends").stdin(Stdio::piped());
        // Its signals are unblocked even if ours are blocked.
        process::prepare_child(&mut command, SigSet::empty(), None, person);
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => eprintln!("agentsecrets: the audit exporter cannot be started: {error}"),
        }
    }
}

impl Drop for AuditExporter {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
            kill_after(child, STOP_TIMEOUT);
        }
    }
}

/// Whether the exporter inherits this variable; none that opens a secret store.
fn is_inherited(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    INHERITED_VARIABLES.contains(&&*name) || name.starts_with("OTEL_") || name.starts_with("XDG_")
}
