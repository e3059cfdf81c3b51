//! The starter keeps the daemon's privileges and reads nothing: it accepts the porter's connections, forks an
//! usher for each, and waits for them to end.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::identity::executable::remember_ourselves;
use crate::privsep::authorizer::Verbs;
use crate::privsep::session_worker;
use crate::privsep::system_config::System;
use crate::sys::process;

/// How long to wait when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// The most verbs at a time.
const MOST: usize = 256;

/// Starts ushers until the system asks to end, or the `porter` ends, which it must not.
pub fn start(listener: &UnixListener, porter: Option<Pid>, system: &System, verbs: &Verbs) -> io::Result<()> {
    let caught: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    caught.thread_block()?;
    let signals = SignalFd::with_flags(&caught, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    listener.set_nonblocking(true)?;
    // What comes to the door is nearly always this program.
    let _ = remember_ourselves();
    let mut ushers = HashSet::new();
    loop {
        let listening = if ushers.len() < MOST { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut awaited =
            [PollFd::new(listener.as_fd(), listening), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut awaited, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        while let Some(signal) = signals.read_signal()? {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(());
            }
        }
        while let Some(ended) = reap()? {
            ushers.remove(&ended);
            if porter == Some(ended) {
                return Err(io::Error::other("the porter ended"));
            }
        }
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // One connection that came to nothing, or no descriptor for it: the others are served.
            Err(error) => {
                tracing::warn!(%error, "a request could not be accepted");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        // The porter alone, or root: this socket's file is theirs, and the kernel says so again.
        let credentials = getsockopt(&connection, sockopt::PeerCredentials);
        let may = credentials.is_ok_and(|it| it.uid() == system.uid.as_raw() || it.uid() == 0);
        if !may || connection.set_nonblocking(false).is_err() {
            continue;
        }
        let usher = process::fork(|| {
            let _ = SigSet::empty().thread_set_mask();
            session_worker::live(connection, system, verbs)
        });
        match usher {
            Ok(usher) => drop(ushers.insert(usher)),
            Err(error) => tracing::warn!(%error, "an usher could not be started"),
        }
    }
}

fn reap() -> io::Result<Option<Pid>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(status.pid()),
        Err(error) => Err(error.into()),
    }
}
