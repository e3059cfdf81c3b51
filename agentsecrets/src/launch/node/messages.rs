//! What is said to the interceptor of a node's pods, and heard from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::server::launch_config::{LONGEST_WORD, Reach, Word};
use crate::sys::fd_passing;

/// How long it may be too busy to listen, in milliseconds.
const PATIENCE: u16 = 5_000;

/// Our end of the line.
pub(super) struct Words(AsyncFd<OwnedFd>);

impl Words {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        fd_passing::awaited(socket).map(Self)
    }

    /// Says one word, with what goes with it.
    pub(super) fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        if text.len() > LONGEST_WORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pod has too many labels"));
        }
        loop {
            match fd_passing::send(&self.0, &text, descriptors) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent.map(drop),
            }
            let mut writable = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut writable, PollTimeout::from(PATIENCE))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The next that is heard; nothing once the interceptor has ended.
    pub(super) async fn hear(&self) -> io::Result<Option<Reach>> {
        let mut buffer = vec![0; 4096 * 4];
        let heard =
            self.0.async_io(Interest::READABLE, |socket| fd_passing::receive(socket, &mut buffer)).await;
        match heard {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
            Ok(heard) if heard.length == 0 => Ok(None),
            Ok(heard) => Ok(Some(serde_json::from_slice(buffer.get(..heard.length).unwrap_or_default())?)),
        }
    }
}
