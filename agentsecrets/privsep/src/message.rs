//! Messages on Unix stream sockets: a length of four bytes (big-endian), the body, and the descriptors that come
//! with them. Sizes are checked before anything is stored, and bodies are zeroed when they are dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agentsecrets_sys::fd_passing;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

const HEADER_LENGTH: usize = 4;
const READ_LENGTH: usize = 16 << 10;

/// Maximum sizes of a message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the body.
    pub length: usize,
    /// Descriptors.
    pub descriptors: usize,
}

/// A body, which is never empty, and its descriptors.
#[derive(Default)]
pub struct Message {
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
    /// The descriptors.
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Parses the body as JSON.
    ///
    /// # Errors
    /// If it is not JSON of that type.
    pub fn parse_json<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(io::Error::from)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body may hold a secret.
        write!(f, "Message({} bytes, {} descriptors)", self.body.len(), self.descriptors.len())
    }
}

/// Reads messages. It keeps a partial message between reads, so that a timeout loses nothing.
#[derive(Debug)]
pub(crate) struct MessageReader {
    limits: Limits,
    header: Vec<u8>,
    message: Message,
    /// Whether descriptors of this message were lost.
    is_truncated: bool,
}

impl MessageReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            header: Vec::with_capacity(HEADER_LENGTH),
            message: Message::default(),
            is_truncated: false,
        }
    }

    /// Whether no part of the next message has arrived.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.header.is_empty()
    }

    /// Reads once. `None`: the message is not complete.
    ///
    /// # Errors
    /// If this process may open no more descriptors, the whole message is read and lost, so that the next one can
    /// be read. After every other error nothing can be read any more.
    pub(crate) fn read(&mut self, socket: impl AsFd) -> io::Result<Option<Message>> {
        let mut buffer = Zeroizing::new([0; READ_LENGTH]);
        // Never a byte beyond the message: what follows belongs to another reader.
        let missing = match self.length()? {
            None => HEADER_LENGTH - self.header.len(),
            Some(length) => length - self.message.body.len(),
        };
        let buffer = buffer.get_mut(..missing.min(READ_LENGTH)).unwrap_or_default();
        let received = fd_passing::recv(socket, buffer)?;
        self.message.descriptors.extend(received.descriptors);
        if self.message.descriptors.len() > self.limits.descriptors {
            return Err(invalid("too many descriptors"));
        }
        self.is_truncated |= received.is_truncated;
        if received.length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = buffer.get(..received.length).unwrap_or_default();
        match self.length()? {
            None => self.header.extend_from_slice(bytes),
            Some(_) => append(&mut self.message.body, bytes),
        }
        if self.length()? != Some(self.message.body.len()) {
            return Ok(None);
        }
        self.header.clear();
        let message = std::mem::take(&mut self.message);
        if std::mem::take(&mut self.is_truncated) {
            return Err(io::Error::other("a descriptor is lost: this process may open no more"));
        }
        Ok(Some(message))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(header) = self.header.first_chunk() else { return Ok(None) };
        match u32::from_be_bytes(*header) as usize {
            0 => Err(invalid("an empty message")),
            length if length > self.limits.length => Err(invalid("the message is too long")),
            length => Ok(Some(length)),
        }
    }
}

/// Appends `bytes`. When it grows, the old allocation is zeroed.
fn append(body: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    if body.capacity() - body.len() < bytes.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + bytes.len()) * 2));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(bytes);
}

/// A message on its way: its bytes, and how many have been sent.
pub(crate) struct Outgoing<'a> {
    bytes: Zeroizing<Vec<u8>>,
    sent: usize,
    descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(body: &[u8], descriptors: &'a [BorrowedFd<'a>], limits: Limits) -> io::Result<Self> {
        if body.is_empty() || body.len() > limits.length || descriptors.len() > limits.descriptors {
            return Err(invalid("the message is empty or too long"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_LENGTH + body.len()));
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(body);
        Ok(Self { bytes, sent: 0, descriptors })
    }

    /// Sends once. `true`: the message is sent.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        // The descriptors go with the first bytes.
        let descriptors = if self.sent == 0 { self.descriptors } else { &[] };
        self.sent += fd_passing::send(socket, rest, descriptors)?;
        Ok(self.sent >= self.bytes.len())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Whether the other side closed the connection, perhaps without reading all that was sent.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
