//! Reads and writes WebSocket frames in order, with backpressure, and in fragments so that no message is
//! buffered completely. Frames that violate RFC 6455 are errors; message contents are not inspected here.

use std::io::{self, Cursor};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use zeroize::Zeroizing;

/// Maximum size of one fragment, in bytes. A smaller frame stays one frame.
pub(crate) const MAX_FRAGMENT_SIZE: usize = 64 * 1024;
/// Maximum payload of a control frame, in bytes.
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// Type of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Text,
    Binary,
}

/// Type of a control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlKind {
    Ping,
    Pong,
    Close,
}

/// Part of a message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// Part of a data message.
    Data {
        /// The message's type.
        kind: MessageKind,
        /// The unmasked payload.
        bytes: BytesMut,
        /// Whether the message ends with this fragment.
        is_last: bool,
    },
    /// A control frame, which may arrive between the fragments of a message.
    Control(ControlKind, BytesMut),
}

/// An error that ends a WebSocket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebSocketError {
    /// The connection failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer sent an invalid frame.
    #[error("it broke the WebSocket protocol: {0}")]
    Protocol(&'static str),
}

/// Reads frames.
pub(crate) struct FrameReader<R> {
    io: R,
    /// Whether frames must be masked (a client's) or must not (a server's).
    is_masked: bool,
    buffer: BytesMut,
    /// Frame whose payload is being read.
    frame: Option<OpenFrame>,
    /// Type of the unfinished message.
    message: Option<MessageKind>,
}

struct OpenFrame {
    remaining: u64,
    is_final: bool,
    kind: MessageKind,
    mask: Option<[u8; 4]>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads the frames of a client.
    pub(crate) fn from_client(io: R) -> Self {
        Self { io, is_masked: true, buffer: BytesMut::new(), frame: None, message: None }
    }

    /// Reads the frames of a server.
    pub(crate) fn from_server(io: R) -> Self {
        Self { io, is_masked: false, buffer: BytesMut::new(), frame: None, message: None }
    }

    /// Returns the next fragment, or `None` at the end of the connection. Not cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Fragment>, WebSocketError> {
        loop {
            if let Some(frame) = self.frame.take() {
                return self.data(frame).await.map(Some);
            }
            let mut cursor = Cursor::new(&*self.buffer);
            let parsed = FrameHeader::parse(&mut cursor);
            let parsed = parsed.map_err(|_| WebSocketError::Protocol("a frame of an unknown kind"))?;
            let taken = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let Some((header, length)) = parsed else {
                if self.fill().await? {
                    continue;
                }
                return match self.buffer.is_empty() && self.message.is_none() {
                    true => Ok(None),
                    false => Err(WebSocketError::Io(io::ErrorKind::UnexpectedEof.into())),
                };
            };
            self.buffer.advance(taken.min(self.buffer.len()));
            if let Some(control) = self.start_frame(&header, length)? {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let payload = self.read_payload(length, header.mask).await?;
                return Ok(Some(Fragment::Control(control, payload)));
            }
        }
    }

    /// Validates a frame header. Returns the type of a control frame; a data frame is stored.
    fn start_frame(
        &mut self,
        header: &FrameHeader,
        length: u64,
    ) -> Result<Option<ControlKind>, WebSocketError> {
        let wrong = |what| Err(WebSocketError::Protocol(what));
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
                if !header.is_final || length > MAX_CONTROL_PAYLOAD as u64 {
                    return wrong("a control frame that is large or in parts");
                }
                return match control {
                    Control::Ping => Ok(Some(ControlKind::Ping)),
                    Control::Pong => Ok(Some(ControlKind::Pong)),
                    Control::Close if length == 1 => wrong("a close frame with half a code"),
                    Control::Close => Ok(Some(ControlKind::Close)),
                    Control::Reserved(_) => wrong("a frame of an unknown kind"),
                };
            }
            (OpCode::Data(Data::Continue), Some(kind)) => kind,
            (OpCode::Data(Data::Text), None) => MessageKind::Text,
            (OpCode::Data(Data::Binary), None) => MessageKind::Binary,
            _ => return wrong("a message that begins within another, or goes on without having begun"),
        };
        self.message = Some(kind);
        self.frame =
            Some(OpenFrame { remaining: length, is_final: header.is_final, kind, mask: header.mask });
        Ok(None)
    }

    /// Reads the next fragment of the current frame.
    async fn data(&mut self, mut frame: OpenFrame) -> Result<Fragment, WebSocketError> {
        let size = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(MAX_FRAGMENT_SIZE);
        let bytes = self.read_payload(size, frame.mask).await?;
        // A fragment's size is a multiple of the mask's length, so that the mask starts over in the next
        // one.
        frame.remaining -= bytes.len() as u64;
        let kind = frame.kind;
        let is_last = frame.remaining == 0 && frame.is_final;
        if frame.remaining > 0 {
            self.frame = Some(frame);
        } else if is_last {
            self.message = None;
        }
        Ok(Fragment::Data { kind, bytes, is_last })
    }

    /// Reads `size` bytes and unmasks them.
    async fn read_payload(&mut self, size: usize, mask: Option<[u8; 4]>) -> Result<BytesMut, WebSocketError> {
        while self.buffer.len() < size {
            if !self.fill().await? {
                return Err(WebSocketError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let mut bytes = self.buffer.split_to(size);
        if let Some(mask) = mask {
            apply_mask(&mut bytes, mask);
        }
        Ok(bytes)
    }

    /// Reads more bytes. Returns false at the end of the connection.
    async fn fill(&mut self) -> Result<bool, WebSocketError> {
        self.buffer.reserve(8 * 1024);
        Ok(self.io.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Writes frames.
pub(crate) struct FrameWriter<W> {
    io: W,
    /// Whether frames are masked, as a client's must be.
    is_masked: bool,
    /// Whether a message is unfinished.
    is_open: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes as a client.
    pub(crate) fn to_server(io: W) -> Self {
        Self { io, is_masked: true, is_open: false }
    }

    /// Writes as a server.
    pub(crate) fn to_client(io: W) -> Self {
        Self { io, is_masked: false, is_open: false }
    }

    /// Writes the next fragment of a message.
    pub(crate) async fn data(&mut self, kind: MessageKind, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let opcode = match (self.is_open, kind) {
            (true, _) => Data::Continue,
            (false, MessageKind::Text) => Data::Text,
            (false, MessageKind::Binary) => Data::Binary,
        };
        self.is_open = !is_last;
        self.frame(OpCode::Data(opcode), bytes, is_last).await
    }

    /// Writes a control frame.
    pub(crate) async fn control(&mut self, control: ControlKind, bytes: &[u8]) -> io::Result<()> {
        let control = match control {
            ControlKind::Ping => Control::Ping,
            ControlKind::Pong => Control::Pong,
            ControlKind::Close => Control::Close,
        };
        let bytes = bytes.get(..MAX_CONTROL_PAYLOAD).unwrap_or(bytes);
        self.frame(OpCode::Control(control), bytes, true).await
    }

    /// Writes a close frame.
    pub(crate) async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        self.control(ControlKind::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat()).await
    }

    /// Shuts the writing side.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    async fn frame(&mut self, opcode: OpCode, bytes: &[u8], is_final: bool) -> io::Result<()> {
        let mask = match self.is_masked {
            true => Some(random_mask()?),
            false => None,
        };
        let header = FrameHeader { is_final, opcode, mask, ..FrameHeader::default() };
        // The payload may hold a secret.
        let mut frame = Zeroizing::new(Vec::with_capacity(bytes.len() + 14));
        header.format(bytes.len() as u64, &mut *frame).map_err(io::Error::other)?;
        let begin = frame.len();
        frame.extend_from_slice(bytes);
        if let (Some(mask), Some(payload)) = (mask, frame.get_mut(begin..)) {
            apply_mask(payload, mask);
        }
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }
}

fn random_mask() -> io::Result<[u8; 4]> {
    let mut mask = [0; 4];
    aws_lc_rs::rand::fill(&mut mask).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(mask)
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    for part in bytes.chunks_mut(4) {
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
