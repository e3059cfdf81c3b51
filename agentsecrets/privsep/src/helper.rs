//! Helpers: processes that are forked while the parent has privileges, keep the one that their task takes, and
//! answer requests. A helper reads no byte of an agent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use agentsecrets_sys::process;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::setsid;
use zeroize::Zeroizing;

use crate::{Channel, Limits, Message};

/// Limits of small requests and responses.
pub const SMALL: Limits = Limits { length: 16 * 1024, descriptors: 1 };

/// A response: its bytes, and a file that goes with it.
pub type Response = (Vec<u8>, Option<OwnedFd>);

/// A channel for one request at a time.
#[derive(Debug)]
pub struct RequestChannel {
    channel: Channel,
    sequence: u64,
}

impl RequestChannel {
    /// Forks a helper that gives up by `confine` what it does not need and then answers with `respond`. The
    /// calling process must have one thread; the helper ends when the last copy of the channel closes. A
    /// response that takes longer than `timeout` is given up.
    ///
    /// # Errors
    /// If the process has more than one thread or cannot fork.
    pub fn fork(
        timeout: Duration,
        confine: impl FnOnce() -> io::Result<()>,
        respond: impl FnMut(&[u8]) -> Response,
    ) -> io::Result<Self> {
        Self::new(fork(SMALL, confine, |channel| serve(channel, respond))?, timeout)
    }

    /// Sends requests over `channel`, each with this time limit.
    ///
    /// # Errors
    /// If the limit is zero.
    pub fn new(channel: Channel, timeout: Duration) -> io::Result<Self> {
        channel.set_receive_timeout(Some(timeout))?;
        Ok(Self { channel, sequence: 0 })
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// If the helper is gone or does not respond in time.
    pub fn request(&mut self, body: &[u8]) -> io::Result<Message> {
        self.sequence += 1;
        let number = self.sequence.to_be_bytes();
        self.channel.send(&Zeroizing::new([&number[..], body].concat()), &[])?;
        loop {
            let Some(mut message) = self.channel.recv()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the helper process is gone"));
            };
            if message.body.len() < number.len() {
                return Err(invalid_response());
            }
            // The late response to a request that was given up is not the response to this one.
            if message.body.starts_with(&number) {
                message.body.drain(..number.len());
                return Ok(message);
            }
        }
    }

    /// Answers requests in a thread of this process: tests have threads and cannot fork. A late response to
    /// an earlier request comes before each.
    #[doc(hidden)]
    pub fn to_thread(respond: impl FnMut(&[u8]) -> Response + Send + 'static) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair(SMALL)?;
        let late = theirs.try_clone()?;
        let mut respond = respond;
        std::thread::spawn(move || {
            serve(&theirs, |request| {
                let _ = late.send(&[&0u64.to_be_bytes()[..], b"-"].concat(), &[]);
                respond(request)
            })
        });
        Self::new(ours, Duration::from_secs(5))
    }
}

/// The error for a response that cannot be parsed.
pub fn invalid_response() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the helper process cannot be understood")
}

/// Answers requests until the channel closes.
///
/// # Errors
/// If the channel fails or a request is malformed.
pub fn serve(channel: &Channel, mut respond: impl FnMut(&[u8]) -> Response) -> io::Result<()> {
    while let Some(message) = channel.recv()? {
        let (number, request) = message.body.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        let (body, file) = respond(request);
        let body = Zeroizing::new(body);
        let file: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        channel.send(&Zeroizing::new([&number[..], &body].concat()), &file)?;
    }
    Ok(())
}

/// Forks a process that gives up by `confine` what it does not need and then does its `work` with the other end
/// of the returned channel. The calling process must have one thread.
///
/// # Errors
/// If the process has more than one thread or cannot fork.
pub fn fork(
    limits: Limits,
    confine: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce(&Channel) -> io::Result<()>,
) -> io::Result<Channel> {
    let (ours, theirs) = Channel::pair(limits)?;
    process::fork(|| match become_helper(&[theirs.as_fd()], confine).and_then(|()| work(&theirs)) {
        Ok(()) => 0,
        Err(_) => 1,
    })?;
    Ok(ours)
}

/// Makes a forked child a helper: without signals, terminal and other descriptors than `keep`.
///
/// # Errors
/// If one of these steps fails, or `confine` does.
pub fn become_helper(keep: &[BorrowedFd<'_>], confine: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    process::close_all_but(keep)?;
    std::env::set_current_dir("/")?;
    confine()?;
    // After the change of user, which clears it. A closed channel, too, tells a helper that its parent is gone.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_response_is_skipped() {
        let echo = |request: &[u8]| (request.to_vec(), None);
        let mut channel = RequestChannel::to_thread(echo).unwrap();
        for request in [&b"one"[..], b"two"] {
            assert_eq!(&channel.request(request).unwrap().body[..], request);
        }
    }

    #[test]
    fn helper_that_is_gone_is_an_error() {
        let (ours, theirs) = Channel::pair(SMALL).unwrap();
        drop(theirs);
        assert!(RequestChannel::new(ours, Duration::from_secs(5)).unwrap().request(b"x").is_err());
    }
}
