//! Answers come compressed; a secret can only be found in what they say. They are decoded as they
//! stream, in bounded memory, and forwarded without coding. A coding that we do not know, a damaged
//! one and one that expands beyond reason end the answer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread;
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};
use tokio_util::io::StreamReader;

use agentsecrets_types::body::{Body, BodyError};
use agentsecrets_types::sync::MutexExt;

/// A coding that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` and `x-gzip`.
    Gzip,
    /// `deflate`: zlib's format, or the bare one that some servers send in its place.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// Why an answer cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CodingError {
    /// A coding that we do not know.
    #[error("the answer comes in a coding that cannot be searched")]
    Unknown,
    /// More codings than anybody means well with.
    #[error("the answer is encoded more than twice")]
    TooMany,
}

/// How many codings may be stacked.
const MAX_CODINGS: usize = 2;
/// An answer may not grow more than so many times, once it is larger than `RATIO_FREE_BYTES` bytes.
const MAX_RATIO: u64 = 1000;
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// 8 MiB, the window that RFC 9659 lets senders use.
const ZSTD_WINDOW_LOG: u32 = 23;
/// How much is decoded at a time, in bytes.
const CHUNK_SIZE: usize = 16 << 10;

impl Coding {
    /// The coding of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else if is("br") {
            Some(Self::Brotli)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    fn decoder(self, input: Input) -> Box<dyn AsyncRead + Send + Unpin> {
        match self {
            Self::Gzip => {
                let mut decoder = bufread::GzipDecoder::new(input);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
            Self::Deflate => Box::new(Deflate::Undecided(Some(input))),
            Self::Brotli => Box::new(bufread::BrotliDecoder::new(input)),
            Self::Zstd => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let mut decoder = bufread::ZstdDecoder::with_params(input, &window);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
        }
    }
}

/// The codings of an answer, in the order in which they were applied; empty when it is plain.
pub fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, CodingError> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| CodingError::Unknown)?;
        for name in value.split(',').map(str::trim) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            codings.push(Coding::named(name).ok_or(CodingError::Unknown)?);
        }
    }
    if codings.len() > MAX_CODINGS { Err(CodingError::TooMany) } else { Ok(codings) }
}

/// Decodes `body` from `codings`. Trailers are kept.
pub fn decoded(body: Body, codings: &[Coding]) -> Decoded {
    let read = Arc::new(AtomicU64::new(0));
    let source = Source { body: Arc::new(Mutex::new(body)), read: read.clone(), trailers: Arc::default() };
    let rest = source.clone();
    let mut input: Input = Box::new(StreamReader::new(source));
    let mut decoder: Option<Box<dyn AsyncRead + Send + Unpin>> = None;
    for coding in codings.iter().rev() {
        if let Some(outer) = decoder.take() {
            input = Box::new(BufReader::with_capacity(CHUNK_SIZE, outer));
        }
        let inner = std::mem::replace(&mut input, Box::new(tokio::io::empty()));
        decoder = Some(coding.decoder(inner));
    }
    let decoder = decoder.unwrap_or_else(|| Box::new(input));
    Decoded { decoder, read, written: 0, rest, buffer: BytesMut::new(), state: State::Data }
}

type Input = Box<dyn AsyncBufRead + Send + Unpin>;
type Trailers = Arc<Mutex<Option<HeaderMap>>>;

/// A decoded body.
pub struct Decoded {
    decoder: Box<dyn AsyncRead + Send + Unpin>,
    read: Arc<AtomicU64>,
    written: u64,
    /// The rest of the source after the decoded bytes: trailers, as a rule.
    rest: Source,
    buffer: BytesMut,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.state == State::Data {
            match ready!(self.as_mut().poll_chunk(cx)) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => self.state = State::Trailers,
                Err(error) => {
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if self.state == State::Trailers {
            // A decoder may end before the body does.
            while let Some(more) = ready!(self.rest.poll_data(cx)) {
                if let Err(error) = more {
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            self.state = State::Done;
            let trailers = self.rest.trailers.lock().ok().and_then(|mut slot| slot.take());
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

impl Decoded {
    /// The next piece, or nothing at the end.
    fn poll_chunk(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let this = &mut *self;
        this.buffer.resize(CHUNK_SIZE, 0);
        let mut buffer = ReadBuf::new(&mut this.buffer);
        let result = ready!(Pin::new(&mut this.decoder).poll_read(cx, &mut buffer));
        let length = buffer.filled().len();
        let read = this.read.load(Ordering::Relaxed);
        match result {
            Ok(()) if length == 0 => Poll::Ready(Ok(None)),
            Ok(()) => {
                this.written += length as u64;
                if this.written > RATIO_FREE_BYTES && this.written / MAX_RATIO > read {
                    return Poll::Ready(Err(BodyError::Coding("it expands beyond reason")));
                }
                this.buffer.truncate(length);
                Poll::Ready(Ok(Some(this.buffer.split().freeze())))
            }
            // An answer may say that it is compressed and then be empty.
            Err(_) if read == 0 && this.written == 0 => Poll::Ready(Ok(None)),
            Err(error) => Poll::Ready(Err(into_body_error(error))),
        }
    }
}

fn into_body_error(error: io::Error) -> BodyError {
    match error.downcast::<BodyError>() {
        Ok(error) => error,
        Err(_) => BodyError::Coding("it is damaged"),
    }
}

/// The data of a body as a stream of chunks; its trailers go aside.
#[derive(Clone)]
struct Source {
    body: Arc<Mutex<Body>>,
    read: Arc<AtomicU64>,
    trailers: Trailers,
}

impl Source {
    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut body = self.body.lock_ignoring_poison();
        if body.is_end_stream() {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)?) else { return Poll::Ready(None) };
        match frame.into_data() {
            Ok(data) => {
                self.read.fetch_add(data.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(data)))
            }
            Err(frame) => {
                if let (Ok(trailers), Ok(mut slot)) = (frame.into_trailers(), self.trailers.lock()) {
                    *slot = Some(trailers);
                }
                Poll::Ready(None)
            }
        }
    }
}

impl futures_util::Stream for Source {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_data(cx).map(|data| data.map(|data| data.map_err(io::Error::other)))
    }
}

/// `deflate` is decided by its first byte: zlib's begins with its method, 8.
enum Deflate {
    Undecided(Option<Input>),
    Decided(Box<dyn AsyncRead + Send + Unpin>),
}

impl AsyncRead for Deflate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Undecided(input) = &mut *self {
            let Some(reader) = input.as_mut() else { return Poll::Ready(Ok(())) };
            let first = ready!(Pin::new(reader).poll_fill_buf(cx))?.first().copied();
            let Some(reader) = input.take() else { return Poll::Ready(Ok(())) };
            *self = Self::Decided(match first {
                Some(first) if first & 15 != 8 => Box::new(bufread::DeflateDecoder::new(reader)),
                _ => Box::new(bufread::ZlibDecoder::new(reader)),
            });
        }
        match &mut *self {
            Self::Decided(decoder) => Pin::new(decoder).poll_read(cx, buffer),
            Self::Undecided(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Headers that speak of the bytes as they were before we changed them.
pub(super) const DIGESTS: [HeaderName; 5] = [
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("x-goog-hash"),
];
