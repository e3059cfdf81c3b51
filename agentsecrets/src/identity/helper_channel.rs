//! The line to a helper: a process of ours that was forked while we had privileges, keeps the one that its task
//! takes, reads no byte of an agent, and answers questions, one at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::setsid;

use crate::sys::{process, terminal};

/// Longer than any question and any answer.
const LONGEST: usize = 16 * 1024;

/// What is answered, and a file that goes with it.
pub(super) type Answer = (Vec<u8>, Option<OwnedFd>);

/// Our end.
pub(super) struct Line {
    socket: OwnedFd,
    asked: u64,
}

impl Line {
    /// Forks a helper, which gives up by `confine` what it does not need, and then answers by `answer`. The
    /// calling process must have one thread; the helper ends when the last copy of the line closes. An answer
    /// that takes longer than `patience` is given up on.
    pub(super) fn start(
        patience: Duration,
        confine: impl FnOnce() -> io::Result<()>,
        answer: impl FnMut(&[u8]) -> Answer,
    ) -> io::Result<Self> {
        Self::new(helper(confine, |theirs| serve(theirs, answer))?, patience)
    }

    fn new(socket: OwnedFd, patience: Duration) -> io::Result<Self> {
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(patience.as_secs() as i64, 0))?;
        Ok(Self { socket, asked: 0 })
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, question: &[u8]) -> io::Result<Answer> {
        self.asked += 1;
        terminal::send(&self.socket, &[&self.asked.to_be_bytes()[..], question].concat(), None)?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, file) = terminal::receive(&self.socket, &mut buffer)?;
            let answer = buffer.get(..length).unwrap_or_default();
            if answer.is_empty() {
                return Err(io::Error::other("the process that answers is gone"));
            }
            let Some((number, answer)) = answer.split_first_chunk() else { return Err(unclear()) };
            // An answer to a question that we gave up on is not an answer to this one.
            if u64::from_be_bytes(*number) == self.asked {
                return Ok((answer.to_vec(), file));
            }
        }
    }
}

/// What was answered makes no sense.
pub(super) fn unclear() -> io::Error {
    io::Error::other("the process that answers cannot be understood")
}

/// Forks a process that gives up by `confine` what it does not need, and then does its `work` with the other end of
/// the socket that is returned. The calling process must have one thread.
pub(super) fn helper(
    confine: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = pair()?;
    process::fork(|| match live(&theirs, confine, work) {
        Ok(()) => 0,
        Err(_) => 1,
    })?;
    Ok(ours)
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// The life of a helper.
fn live(
    socket: &OwnedFd,
    confine: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    process::close_all_but(&[socket.as_fd()])?;
    std::env::set_current_dir("/")?;
    confine()?;
    // After the change of user, which undoes it. The line tells, too, when there is nobody left to answer.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    work(socket)
}

/// Answers until the line closes.
fn serve(socket: &OwnedFd, mut answer: impl FnMut(&[u8]) -> Answer) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, _) = terminal::receive(socket, &mut buffer)?;
        let Some((number, question)) = buffer.get(..length).and_then(<[u8]>::split_first_chunk::<8>) else {
            return Ok(());
        };
        let (text, file) = answer(question);
        terminal::send(socket, &[number, &*text].concat(), file.as_ref())?;
    }
}

#[cfg(test)]
impl Line {
    /// A line to a thread: tests have some, and cannot fork. It says something late before each answer.
    pub(super) fn to_thread(answer: impl FnMut(&[u8]) -> Answer + Send + 'static) -> Self {
        let (ours, theirs) = pair().unwrap();
        let line = Self::new(ours, Duration::from_secs(5)).unwrap();
        let late = theirs.try_clone().unwrap();
        let mut answer = answer;
        std::thread::spawn(move || {
            serve(&theirs, |question| {
                terminal::send(&late, &[&0u64.to_be_bytes()[..], b"-"].concat(), None).unwrap();
                answer(question)
            })
        });
        line
    }
}
