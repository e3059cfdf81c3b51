//! A channel for messages between tasks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::channel::Channel;
use crate::message::{Limits, Message, MessageReader, Outgoing, is_closed};

/// The asynchronous form of [`Channel`](crate::Channel).
#[derive(Debug)]
pub struct AsyncChannel {
    socket: UnixStream,
    limits: Limits,
    reader: MessageReader,
}

impl AsyncChannel {
    /// A channel over `socket`. The limits hold for both directions.
    pub fn new(socket: UnixStream, limits: Limits) -> Self {
        Self { socket, limits, reader: MessageReader::new(limits) }
    }

    /// The same channel for tasks. Nothing of a message may have been received.
    ///
    /// # Errors
    /// Outside a runtime.
    pub fn from_channel(channel: Channel) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        let limits = channel.limits();
        Ok(Self::new(UnixStream::from_std(channel.into_socket())?, limits))
    }

    /// Receives one message; `None` if the other side closed the channel between two messages. It may be
    /// cancelled: the next call continues the same message.
    ///
    /// # Errors
    /// If the message exceeds the limits or is cut off.
    pub async fn recv(&mut self) -> io::Result<Option<Message>> {
        loop {
            self.socket.readable().await?;
            let read = self.socket.try_io(Interest::READABLE, || self.reader.read(&self.socket));
            match read {
                Ok(Some(message)) => return Ok(Some(message)),
                Err(error) if is_closed(&error) && self.reader.is_at_boundary() => return Ok(None),
                Err(error) if !is_temporary(&error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Sends one message. It must not be cancelled.
    ///
    /// # Errors
    /// If it exceeds the limits or the other side is gone.
    pub async fn send(&self, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut outgoing = Outgoing::new(body, descriptors, self.limits)?;
        loop {
            self.socket.writable().await?;
            match self.socket.try_io(Interest::WRITABLE, || outgoing.send(&self.socket)) {
                Ok(true) => return Ok(()),
                Err(error) if !is_temporary(&error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Sends one message and blocks the thread meanwhile, each time for at most `timeout`.
    ///
    /// # Errors
    /// If it exceeds the limits, the other side is gone or does not receive in time.
    pub fn send_blocking(
        &self,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> io::Result<()> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut outgoing = Outgoing::new(body, descriptors, self.limits)?;
        loop {
            match outgoing.send(&self.socket) {
                Ok(true) => return Ok(()),
                Err(error) if !is_temporary(&error) => return Err(error),
                Ok(false) => continue,
                Err(_) => {}
            }
            let mut writable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut writable, timeout)? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The socket, in blocking mode.
    ///
    /// # Errors
    /// If it cannot be taken off the runtime.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixStream> {
        let socket = self.socket.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// The same channel for a thread, still non-blocking.
    pub(crate) fn into_nonblocking_channel(self) -> io::Result<Channel> {
        Ok(Channel::new(self.socket.into_std()?, self.limits))
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn messages_pass_in_both_directions() {
        let limits = Limits { length: 1 << 20, descriptors: 2 };
        let (one, other) = Channel::pair(limits).unwrap();
        let (mut one, mut other) =
            (AsyncChannel::from_channel(one).unwrap(), AsyncChannel::from_channel(other).unwrap());
        let body = vec![1; 500_000];
        let stdin = io::stdin();
        let (descriptors, null) = ([stdin.as_fd()], []);
        let (sent, received) = tokio::join!(one.send(&body, &descriptors), other.recv());
        sent.unwrap();
        let message = received.unwrap().unwrap();
        assert_eq!((message.body.len(), message.descriptors.len()), (body.len(), 1));
        other.send_blocking(b"back", &null, Duration::from_secs(1)).unwrap();
        assert_eq!(&one.recv().await.unwrap().unwrap().body[..], b"back");
        let blocked = other.send_blocking(&vec![0; 1 << 20], &null, Duration::from_millis(20));
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert!(other.recv().await.unwrap().is_none());
    }
}
