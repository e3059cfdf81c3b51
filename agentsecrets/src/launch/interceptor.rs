//! The interceptor as the launcher knows it: a child with the listening sockets and one control socket.
//! It ends when that socket closes, and nothing is started before it says that it serves.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::sockets::Sockets;
use crate::server::launch_config::{Answer, Order};

/// How long it may take to serve: a person may have to type a passphrase.
const START: Duration = Duration::from_secs(120);

/// How long it may take to end, so that every record is written.
const END: Duration = Duration::from_secs(5);

/// The longest answer, in bytes.
const LONGEST: u64 = 4 << 20;

/// A running interceptor.
pub struct Interceptor {
    child: Child,
    control: UnixStream,
    gone: bool,
    session_over: bool,
}

/// What a serving interceptor tells.
pub struct Ready {
    /// The certificate of this run's authority, in PEM.
    pub authority: String,
    /// `NAME` → placeholder.
    pub placeholders: std::collections::BTreeMap<String, String>,
    /// Ports on which others may reach the agent.
    pub inbound: Vec<u16>,
    /// Folders that hold secrets.
    pub hidden: Vec<std::path::PathBuf>,
}

/// Why there is no interceptor.
#[derive(Debug, thiserror::Error)]
pub enum NoInterceptor {
    /// It could not be started or spoken to.
    #[error("cannot start the interceptor: {0}")]
    Start(#[from] io::Error),
    /// It said nothing in time.
    #[error("the interceptor did not answer within {} seconds", START.as_secs())]
    Silent,
    /// It ended without an answer.
    #[error("the interceptor ended before it could serve")]
    Ended,
    /// It said why it cannot serve.
    #[error("{what}")]
    Refused {
        /// The exit code.
        exit: u8,
        /// What happened.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl Interceptor {
    /// Starts `program` (its path and arguments), gives it `order` and the sockets, and waits until it
    /// serves. When this fails, nothing of it is left.
    pub fn start(
        program: &[OsString],
        order: &Order,
        sockets: Sockets,
    ) -> Result<(Self, Ready), NoInterceptor> {
        let Some((path, arguments)) = program.split_first() else { return Err(NoInterceptor::Ended) };
        let (control, theirs) = UnixStream::pair()?;
        sockets.inheritable()?;
        let child = Command::new(path)
            .arg0("agentsecrets")
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        // The interceptor alone holds them from here on.
        drop(sockets);
        let mut interceptor = Self { child, control, gone: false, session_over: false };
        match interceptor.ask(order) {
            Ok(ready) => Ok((interceptor, ready)),
            Err(error) => {
                interceptor.finish();
                Err(error)
            }
        }
    }

    /// Tells it that all is done that agents need, so that whoever asks for our health is told that they may start.
    pub fn introduced(&self) -> io::Result<()> {
        (&self.control).write_all(b"!")
    }

    /// A descriptor that becomes readable when the interceptor has ended.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Whether it has ended, and this is the first time that it is seen.
    pub fn has_just_ended(&mut self) -> bool {
        if self.gone {
            return false;
        }
        let id = Id::Pid(nix::unistd::Pid::from_raw(self.child.id() as i32));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let dead = waitid(id, flags).is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive);
        let said = (&self.control).read(&mut [0]);
        self.session_over |= matches!(said, Ok(1..));
        let closed = matches!(said, Ok(0));
        self.gone = dead || closed;
        self.gone
    }

    /// Whether it said that the run's session is over.
    pub fn session_is_over(&self) -> bool {
        self.session_over
    }

    /// Whether it was seen to have ended.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Tells it to end and waits until it has; after a while, kills it.
    pub fn finish(mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        reap(&mut self.child, END);
    }

    fn ask(&mut self, order: &Order) -> Result<Ready, NoInterceptor> {
        let mut line = serde_json::to_vec(order).map_err(io::Error::from)?;
        line.push(b'\n');
        // An interceptor that ended early may still have said why: its answer, or its absence, decides.
        let _ = self.control.write_all(&line);
        match self.answer()? {
            Answer::Ready { authority, placeholders, inbound, hidden } => {
                Ok(Ready { authority, placeholders, inbound, hidden })
            }
            Answer::Failed { exit, what, hint } => Err(NoInterceptor::Refused { exit, what, hint }),
        }
    }

    /// The one line that it says.
    fn answer(&mut self) -> Result<Answer, NoInterceptor> {
        let deadline = Instant::now() + START;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && (line.len() as u64) < LONGEST {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
                Ok(0) => return Err(NoInterceptor::Silent),
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(_) => {}
            }
            let mut buffer = [0; 4096];
            match self.control.read(&mut buffer) {
                // It is reset when the interceptor ends without having read its order.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(NoInterceptor::Ended);
                }
                Err(error) => return Err(error.into()),
                Ok(0) => return Err(NoInterceptor::Ended),
                Ok(length) => line.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
        }
        self.control.set_nonblocking(true)?;
        Ok(serde_json::from_slice(&line).map_err(io::Error::from)?)
    }
}

/// Waits until a child that was asked to end has; after `patience`, kills it.
pub(super) fn reap(child: &mut Child, patience: Duration) {
    if let Ok(pidfd) = pidfd(child) {
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ended, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO));
    }
    // One of another user may be beyond our rights, and ends with us.
    if child.try_wait().is_ok_and(|status| status.is_none()) && child.kill().is_ok() {
        let _ = child.wait();
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    crate::sys::process::pidfd(nix::unistd::Pid::from_raw(child.id() as i32))
}
