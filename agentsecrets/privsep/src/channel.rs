//! A blocking channel for messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Limits, Message, MessageReader, Outgoing, is_closed};
use agentsecrets_types::sync::MutexExt;

/// A connected Unix stream socket on which both sides send messages.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    limits: Limits,
    reader: Mutex<MessageReader>,
}

impl Channel {
    /// A channel over `socket`. The limits hold for both directions.
    pub fn new(socket: UnixStream, limits: Limits) -> Self {
        Self { socket, limits, reader: Mutex::new(MessageReader::new(limits)) }
    }

    /// Two connected channels. Both are closed on exec.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn pair(limits: Limits) -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one, limits), Self::new(other, limits)))
    }

    /// Sets the time limit of a receive; `None` waits without one. A receive that times out fails with
    /// [`io::ErrorKind::WouldBlock`], and the next one continues the same message.
    ///
    /// # Errors
    /// If the limit is zero.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// Sets the time limit of a send; `None` waits without one.
    ///
    /// # Errors
    /// If the limit is zero.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout)
    }

    /// Makes sends and receives fail with [`io::ErrorKind::WouldBlock`] instead of waiting.
    ///
    /// # Errors
    /// If the descriptor's flags cannot be changed.
    pub fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(is_nonblocking)
    }

    /// A second sender for the same socket.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.socket.try_clone()?, self.limits))
    }

    /// Closes the connection in both directions, for every copy of the socket.
    pub fn shutdown(&self) {
        // It may be closed already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The socket.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If it exceeds the limits or the other side is gone.
    pub fn send(&self, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut outgoing = Outgoing::new(body, descriptors, self.limits)?;
        loop {
            match outgoing.send(&self.socket) {
                Ok(true) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Sends `value` as JSON.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_json(&self, value: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(&serde_json::to_vec(value)?, descriptors)
    }

    /// Receives one message; `None` if the other side closed the channel between two messages.
    ///
    /// # Errors
    /// If the message exceeds the limits or is cut off, or nothing came in time.
    pub fn recv(&self) -> io::Result<Option<Message>> {
        let mut reader = self.reader.lock_ignoring_poison();
        loop {
            match reader.read(&self.socket) {
                Ok(Some(message)) => return Ok(Some(message)),
                Err(error) if is_closed(&error) && reader.is_at_boundary() => return Ok(None),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Receives JSON and its descriptors; `None` if the other side closed the channel.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv), and if it is not JSON of that type.
    pub fn recv_json<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Message)>> {
        let Some(message) = self.recv()? else { return Ok(None) };
        Ok(Some((message.parse_json()?, message)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use agentsecrets_sys::fd_passing;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { length: 1 << 20, descriptors: 24 };

    #[test]
    fn message_arrives_with_its_descriptors() {
        let (one, other) = Channel::pair(LIMITS).unwrap();
        let body = vec![7; 300_000];
        let sender = std::thread::spawn(move || {
            let (stdin, file) = (io::stdin(), tempfile::tempfile().unwrap());
            one.send(&body, &[stdin.as_fd(), file.as_fd()]).unwrap();
            one.send(b"next", &[stdin.as_fd()]).unwrap();
        });
        let message = other.recv().unwrap().unwrap();
        assert_eq!((message.body.len(), message.descriptors.len()), (300_000, 2));
        let message = other.recv().unwrap().unwrap();
        assert_eq!((&message.body[..], message.descriptors.len()), (&b"next"[..], 1));
        sender.join().unwrap();
        assert!(other.recv().unwrap().is_none(), "closed between messages");
    }

    #[test]
    fn timeout_within_a_message_loses_nothing() {
        let (mut socket, other) = UnixStream::pair().unwrap();
        let channel = Channel::new(other, LIMITS);
        channel.set_receive_timeout(Some(Duration::from_millis(20))).unwrap();
        for part in [&b"\0\0"[..], b"\0\x05he", b"ll"] {
            socket.write_all(part).unwrap();
            assert_eq!(channel.recv().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        socket.write_all(b"o").unwrap();
        assert_eq!(&channel.recv().unwrap().unwrap().body[..], b"hello");
    }

    #[test]
    fn too_many_descriptors_are_rejected_and_closed() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let stdin = io::stdin();
        let before = open();
        for _ in 0..20 {
            let (one, other) = UnixStream::pair().unwrap();
            fd_passing::send(&one, b"\0\0", &vec![stdin.as_fd(); 253]).unwrap();
            assert!(Channel::new(other, LIMITS).recv().is_err());
        }
        // Other tests of this process open and close some meanwhile.
        assert!(open() < before + 253, "{} were open, {} are", before, open());
    }

    #[test]
    fn length_beyond_the_limit_is_rejected() {
        for length in [0, LIMITS.length as u32 + 1, u32::MAX] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&length.to_be_bytes()).unwrap();
            // It is rejected before a byte of the body comes.
            one.write_all(b"x").unwrap();
            let error = Channel::new(other, LIMITS).recv().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&bytes).unwrap();
            drop(one);
            let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            let whole = length.filter(|length| *length > 0 && bytes.len() >= length + 4);
            let received = Channel::new(other, LIMITS).recv();
            prop_assert_eq!(received.ok().flatten().map(|message| message.body.len()), whole);
        }
    }
}
