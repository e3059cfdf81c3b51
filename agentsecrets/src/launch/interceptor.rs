//! The launcher's side of the interceptor process: a child with the listeners and one control socket. It ends
//! when that socket closes, and no agent is started before it is ready.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::sockets::ListenerSockets;
use crate::privsep::Channel;
use crate::server::launch_config::{CONTROL_LIMITS, ControlMessage, LaunchConfig, StartResponse};

/// A person may have to type a passphrase.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// It must be able to complete every record.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running interceptor.
pub(crate) struct InterceptorProcess {
    child: Child,
    control: Channel,
    has_ended: bool,
    is_session_over: bool,
}

/// The data of a ready interceptor.
pub(crate) struct InterceptorReady {
    /// The certificate of this run's authority, in PEM.
    pub(crate) authority: String,
    /// `NAME` → placeholder.
    pub(crate) placeholders: std::collections::BTreeMap<String, String>,
    /// Ports on which others may reach the agent.
    pub(crate) inbound: Vec<u16>,
    /// Folders that hold secrets.
    pub(crate) secret_folders: Vec<std::path::PathBuf>,
}

/// Reasons that there is no interceptor.
#[derive(Debug, thiserror::Error)]
pub enum InterceptorError {
    /// It could not be started, or its socket failed.
    #[error("cannot start the interceptor: {0}")]
    Start(#[from] io::Error),
    /// It did not respond in time.
    #[error("the interceptor did not answer within {} seconds", START_TIMEOUT.as_secs())]
    TimedOut,
    /// It ended without a response.
    #[error("the interceptor ended before it could serve")]
    Ended,
    /// It reported an error.
    #[error("{error}")]
    Failed {
        /// The exit code.
        exit: u8,
        /// The reason.
        error: String,
        /// The remedy.
        hint: Option<String>,
    },
}

impl InterceptorProcess {
    /// Starts `program` (path and arguments), sends it `config` and the sockets, and waits until it is ready.
    /// If that fails, nothing of it is left.
    pub(crate) fn start(
        program: &[OsString],
        config: &LaunchConfig,
        sockets: ListenerSockets,
    ) -> Result<(Self, InterceptorReady), InterceptorError> {
        let Some((path, arguments)) = program.split_first() else { return Err(InterceptorError::Ended) };
        let (control, stdin) = UnixStream::pair()?;
        sockets.clear_close_on_exec()?;
        let child = Command::new(path)
            .arg0("agentsecrets")
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::null())
            .spawn()?;
        // Only the interceptor holds them from here on.
        drop(sockets);
        let control = Channel::new(control, CONTROL_LIMITS);
        let mut interceptor = Self { child, control, has_ended: false, is_session_over: false };
        match interceptor.exchange(config) {
            Ok(ready) => Ok((interceptor, ready)),
            Err(error) => {
                interceptor.stop();
                Err(error)
            }
        }
    }

    /// Notifies it that agents have all they need, so that health probes succeed from now on.
    pub(crate) fn notify_agents_ready(&self) -> io::Result<()> {
        self.control.send_json(&ControlMessage::AgentsReady, &[])
    }

    /// A descriptor that becomes readable when the interceptor has ended.
    pub(crate) fn control_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Whether it has ended since the last call.
    pub(crate) fn poll_ended(&mut self) -> bool {
        if self.has_ended {
            return false;
        }
        let id = Id::Pid(nix::unistd::Pid::from_raw(self.child.id() as i32));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let is_dead = waitid(id, flags).is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive);
        let is_closed = match self.control.recv_json::<ControlMessage>() {
            Ok(Some((message, _))) => {
                self.is_session_over |= message == ControlMessage::SessionEnded;
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(None) => true,
        };
        self.has_ended = is_dead || is_closed;
        self.has_ended
    }

    /// Whether it reported that the run's session is over.
    pub(crate) fn session_is_over(&self) -> bool {
        self.is_session_over
    }

    /// Whether it was seen to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Asks it to end and waits; kills it after a timeout.
    pub(crate) fn stop(mut self) {
        self.control.shutdown();
        kill_after(&mut self.child, STOP_TIMEOUT);
    }

    fn exchange(&mut self, config: &LaunchConfig) -> Result<InterceptorReady, InterceptorError> {
        self.control.set_receive_timeout(Some(START_TIMEOUT))?;
        // An interceptor that ended early may have sent a reason: its response decides.
        let _ = self.control.send_json(config, &[]);
        let response = match self.control.recv_json() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(InterceptorError::TimedOut);
            }
            response => response?,
        };
        let (response, _) = response.ok_or(InterceptorError::Ended)?;
        self.control.set_nonblocking(true)?;
        match response {
            StartResponse::Ready { authority, placeholders, inbound, secret_folders } => {
                Ok(InterceptorReady { authority, placeholders, inbound, secret_folders })
            }
            StartResponse::Failed { exit, error, hint } => {
                Err(InterceptorError::Failed { exit, error, hint })
            }
        }
    }
}

/// Waits until a child that was asked to end has ended; kills it after `timeout`.
pub(super) fn kill_after(child: &mut Child, timeout: Duration) {
    if let Ok(pidfd) = pidfd(child) {
        let mut events = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut events, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO));
    }
    // A child of another user may be beyond our rights; it ends with us.
    if child.try_wait().is_ok_and(|status| status.is_none()) && child.kill().is_ok() {
        let _ = child.wait();
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    crate::sys::process::pidfd(nix::unistd::Pid::from_raw(child.id() as i32))
}
