//! The monitor keeps the daemon's privileges and reads nothing: it accepts the frontend's connections, forks a
//! session worker for each, and reaps them.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use agentsecrets_sys::process;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

/// Delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_SESSIONS: usize = 256;

/// Forks a session worker, which runs `work`, for each connection. It returns when a signal ends it. The
/// frontend runs as `daemon_user`; if it is a child of this process, `frontend` is its pid.
///
/// # Errors
/// If the frontend ends, or the listener fails.
pub fn serve(
    listener: &UnixListener,
    frontend: Option<Pid>,
    daemon_user: Uid,
    work: impl Fn(UnixStream) -> u8,
) -> io::Result<()> {
    let caught: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    caught.thread_block()?;
    let signals = SignalFd::with_flags(&caught, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    listener.set_nonblocking(true)?;
    let mut workers = HashSet::new();
    loop {
        let listening = if workers.len() < MAX_SESSIONS { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut events =
            [PollFd::new(listener.as_fd(), listening), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        while let Some(signal) = signals.read_signal()? {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(());
            }
        }
        while let Some(pid) = reap_child()? {
            workers.remove(&pid);
            if frontend == Some(pid) {
                return Err(io::Error::other("the frontend ended"));
            }
        }
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // A failed connection, or no descriptor for it: the others are served.
            Err(error) => {
                tracing::warn!(%error, "a request could not be accepted");
                std::thread::sleep(ACCEPT_RETRY_DELAY);
                continue;
            }
        };
        // Only the frontend or root may connect. The socket's mode ensures that; the kernel confirms it.
        let credentials = getsockopt(&connection, sockopt::PeerCredentials);
        let is_allowed = credentials.is_ok_and(|it| it.uid() == daemon_user.as_raw() || it.uid() == 0);
        if !is_allowed || connection.set_nonblocking(false).is_err() {
            continue;
        }
        let worker = process::fork(|| {
            let _ = SigSet::empty().thread_set_mask();
            work(connection)
        });
        match worker {
            Ok(worker) => drop(workers.insert(worker)),
            Err(error) => tracing::warn!(%error, "a session worker could not be started"),
        }
    }
}

fn reap_child() -> io::Result<Option<Pid>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(status.pid()),
        Err(error) => Err(error.into()),
    }
}
