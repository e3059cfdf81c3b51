//! WebSocket frames as they are read from one end and written to the other: in order, with backpressure,
//! and in pieces, so that no message is ever held whole. Frames that RFC 6455 does not know are errors;
//! what the messages say is not looked at here.

use std::io::{self, Cursor};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use zeroize::Zeroizing;

/// The largest piece, in bytes. A frame that is not larger stays one frame.
pub const PIECE: usize = 64 * 1024;
/// The largest payload of a control frame, in bytes.
pub const CONTROL: usize = 125;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// A control frame's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
    /// Nothing follows.
    Close,
}

/// The next thing that a peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part of a message.
    Data {
        /// Of what kind of message.
        kind: Kind,
        /// The part.
        bytes: BytesMut,
        /// Whether the message ends with it.
        is_last: bool,
    },
    /// A control frame, which may stand between the parts of a message.
    Control(Signal, BytesMut),
}

/// Why a peer's frames cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It sent what is no WebSocket frame, or none that fits here.
    #[error("it broke the WebSocket protocol: {0}")]
    Protocol(&'static str),
}

/// Reads frames.
pub struct Reader<R> {
    io: R,
    /// Whether frames must be masked, as a client's are, or must not.
    is_masked: bool,
    buffer: BytesMut,
    /// The frame whose payload is being read.
    frame: Option<Open>,
    /// The message that is not at its end.
    message: Option<Kind>,
}

struct Open {
    left: u64,
    is_final: bool,
    kind: Kind,
    mask: Option<[u8; 4]>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads what a client sends.
    pub fn of_client(io: R) -> Self {
        Self { io, is_masked: true, buffer: BytesMut::new(), frame: None, message: None }
    }

    /// Reads what a server sends.
    pub fn of_server(io: R) -> Self {
        Self { io, is_masked: false, buffer: BytesMut::new(), frame: None, message: None }
    }

    /// The next piece, or nothing at the end of the connection. Not to be dropped half-way.
    pub async fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        loop {
            if let Some(frame) = self.frame.take() {
                return self.data(frame).await.map(Some);
            }
            let mut cursor = Cursor::new(&*self.buffer);
            let parsed = FrameHeader::parse(&mut cursor);
            let parsed = parsed.map_err(|_| FrameError::Protocol("a frame of an unknown kind"))?;
            let taken = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let Some((header, length)) = parsed else {
                if self.fill().await? {
                    continue;
                }
                return match self.buffer.is_empty() && self.message.is_none() {
                    true => Ok(None),
                    false => Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into())),
                };
            };
            self.buffer.advance(taken.min(self.buffer.len()));
            if let Some(signal) = self.begin(&header, length)? {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let payload = self.take(length, header.mask).await?;
                return Ok(Some(Piece::Control(signal, payload)));
            }
        }
    }

    /// Checks a frame's head. A control frame is given back, a data frame is kept to be read.
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<Option<Signal>, FrameError> {
        let wrong = |what| Err(FrameError::Protocol(what));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return wrong("a frame of an extension that was not agreed on");
        }
        if header.mask.is_some() != self.is_masked {
            return wrong("a frame that is masked where it must not be, or is not where it must be");
        }
        if length > i64::MAX as u64 {
            return wrong("a frame of impossible length");
        }
        let kind = match (header.opcode, self.message) {
            (OpCode::Control(control), _) => {
                if !header.is_final || length > CONTROL as u64 {
                    return wrong("a control frame that is large or in parts");
                }
                return match control {
                    Control::Ping => Ok(Some(Signal::Ping)),
                    Control::Pong => Ok(Some(Signal::Pong)),
                    Control::Close if length == 1 => wrong("a close frame with half a code"),
                    Control::Close => Ok(Some(Signal::Close)),
                    Control::Reserved(_) => wrong("a frame of an unknown kind"),
                };
            }
            (OpCode::Data(Data::Continue), Some(kind)) => kind,
            (OpCode::Data(Data::Text), None) => Kind::Text,
            (OpCode::Data(Data::Binary), None) => Kind::Binary,
            _ => return wrong("a message that begins within another, or goes on without having begun"),
        };
        self.message = Some(kind);
        self.frame = Some(Open { left: length, is_final: header.is_final, kind, mask: header.mask });
        Ok(None)
    }

    /// The next part of the frame.
    async fn data(&mut self, mut frame: Open) -> Result<Piece, FrameError> {
        let size = usize::try_from(frame.left).unwrap_or(usize::MAX).min(PIECE);
        let bytes = self.take(size, frame.mask).await?;
        // A piece is a multiple of the mask's length, so that the next one begins with it again.
        frame.left -= bytes.len() as u64;
        let kind = frame.kind;
        let is_last = frame.left == 0 && frame.is_final;
        if frame.left > 0 {
            self.frame = Some(frame);
        } else if is_last {
            self.message = None;
        }
        Ok(Piece::Data { kind, bytes, is_last })
    }

    /// So many bytes, unmasked.
    async fn take(&mut self, size: usize, mask: Option<[u8; 4]>) -> Result<BytesMut, FrameError> {
        while self.buffer.len() < size {
            if !self.fill().await? {
                return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let mut bytes = self.buffer.split_to(size);
        if let Some(mask) = mask {
            apply(&mut bytes, mask);
        }
        Ok(bytes)
    }

    /// Reads more; false at the end of the connection.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        self.buffer.reserve(8 * 1024);
        Ok(self.io.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Writes frames.
pub struct Writer<W> {
    io: W,
    /// Whether frames are masked, as a client's are.
    is_masked: bool,
    /// Whether a message was begun that is not at its end.
    is_open: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes as a client.
    pub fn to_server(io: W) -> Self {
        Self { io, is_masked: true, is_open: false }
    }

    /// Writes as a server.
    pub fn to_client(io: W) -> Self {
        Self { io, is_masked: false, is_open: false }
    }

    /// Writes the next part of a message.
    pub async fn data(&mut self, kind: Kind, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let opcode = match (self.is_open, kind) {
            (true, _) => Data::Continue,
            (false, Kind::Text) => Data::Text,
            (false, Kind::Binary) => Data::Binary,
        };
        self.is_open = !is_last;
        self.frame(OpCode::Data(opcode), bytes, is_last).await
    }

    /// Writes a control frame.
    pub async fn control(&mut self, signal: Signal, bytes: &[u8]) -> io::Result<()> {
        let control = match signal {
            Signal::Ping => Control::Ping,
            Signal::Pong => Control::Pong,
            Signal::Close => Control::Close,
        };
        let bytes = bytes.get(..CONTROL).unwrap_or(bytes);
        self.frame(OpCode::Control(control), bytes, true).await
    }

    /// Writes a close frame of our own.
    pub async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        self.control(Signal::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat()).await
    }

    /// Says that nothing follows.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    async fn frame(&mut self, opcode: OpCode, bytes: &[u8], is_final: bool) -> io::Result<()> {
        let mask = match self.is_masked {
            true => Some(random()?),
            false => None,
        };
        let header = FrameHeader { is_final, opcode, mask, ..FrameHeader::default() };
        // It may hold a secret on its way out.
        let mut frame = Zeroizing::new(Vec::with_capacity(bytes.len() + 14));
        header.format(bytes.len() as u64, &mut *frame).map_err(io::Error::other)?;
        let begin = frame.len();
        frame.extend_from_slice(bytes);
        if let (Some(mask), Some(payload)) = (mask, frame.get_mut(begin..)) {
            apply(payload, mask);
        }
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }
}

fn random() -> io::Result<[u8; 4]> {
    let mut mask = [0; 4];
    aws_lc_rs::rand::fill(&mut mask).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(mask)
}

fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    for part in bytes.chunks_mut(4) {
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
