//! Strict HTTP/1.1 framing parser. It rejects requests that two parsers could read differently, before
//! hyper sees them: bare line feeds, folded headers, control characters, conflicting lengths. It looks at
//! message boundaries only.

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Request, Status};

use crate::http::header_case::{HeaderCaseMap, HeaderCaseQueue};
use crate::types::hop_by_hop;

/// Maximum size of a request head, in bytes.
pub(super) const MAX_HEAD_SIZE: usize = 64 * 1024;
/// Maximum number of request headers.
pub(super) const MAX_HEADERS: usize = 100;
/// Maximum length of a chunk-size line, including extensions, in bytes.
const MAX_CHUNK_LINE: usize = 1024;

/// A framing error after which the connection is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The response status: 400, 408, 431 or 505.
    pub status: u16,
    /// Description of the error, for the client and the audit record.
    pub message: &'static str,
}

/// Tracks message boundaries on one connection.
#[derive(Debug, Default)]
pub(super) struct FramingParser {
    state: State,
    /// Offset of the first line in the pending bytes that was not scanned yet. Each line is scanned once,
    /// however slowly its bytes arrive.
    scanned: usize,
    header_cases: Arc<HeaderCaseQueue>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Expecting a request head.
    #[default]
    Head,
    /// Expecting this many bytes of a body.
    Body(u64),
    /// Expecting a chunk-size line.
    ChunkSize,
    /// Expecting this many bytes of a chunk.
    Chunk(u64),
    /// Expecting the CRLF after a chunk.
    ChunkEnd,
    /// Expecting trailers and the empty line after them.
    Trailers,
    /// Another protocol was requested: all bytes pass unchecked.
    Passthrough,
}

/// Body framing announced by a request head.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Upgrade,
}

impl FramingParser {
    /// Returns a parser that passes all bytes unchecked.
    pub(super) fn passthrough() -> Self {
        Self { state: State::Passthrough, ..Self::default() }
    }

    /// Returns a parser that records header case in `header_cases`.
    pub(super) fn new(header_cases: Arc<HeaderCaseQueue>) -> Self {
        Self { header_cases, ..Self::default() }
    }

    /// Whether the next bytes are a request head.
    pub(super) fn is_at_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether all bytes pass unchecked.
    pub(super) fn is_passthrough(&self) -> bool {
        self.state == State::Passthrough
    }

    /// Returns the number of leading `bytes` that may be passed on, and the error in those after them.
    /// Heads and lines pass completely or not at all: the caller offers the rest again with more bytes.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> (usize, Result<(), Violation>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(0) => break,
                Ok(passed) => at += passed,
                Err(violation) => return (at, Err(violation)),
            }
        }
        (at, Ok(()))
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let (passed, next) = match self.state {
            State::Passthrough => return Ok(bytes.len()),
            // RFC 9112 asks servers to tolerate an empty line before a request.
            State::Head if bytes.starts_with(b"\r\n") => (2, State::Head),
            State::Head => {
                let Some(end) = self.block_end(bytes)? else { return Ok(0) };
                let (framing, header_case) = parse_head(bytes.get(..end).unwrap_or_default())?;
                self.header_cases.push(header_case);
                let next = match framing {
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                    Framing::Upgrade => State::Passthrough,
                };
                (end, next)
            }
            State::Body(left) => {
                let (passed, left) = take(bytes, left);
                (passed, if left == 0 { State::Head } else { State::Body(left) })
            }
            State::ChunkSize => {
                let Some(end) = line_end(bytes, MAX_CHUNK_LINE)? else { return Ok(0) };
                match chunk_size(bytes.get(..end).unwrap_or_default())? {
                    0 => (end, State::Trailers),
                    size => (end, State::Chunk(size)),
                }
            }
            State::Chunk(left) => {
                let (passed, left) = take(bytes, left);
                (passed, if left == 0 { State::ChunkEnd } else { State::Chunk(left) })
            }
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => (2, State::ChunkSize),
                [b'\r'] => return Ok(0),
                _ => return Err(bad("a chunk does not end where its size says")),
            },
            State::Trailers => match bytes {
                [b'\r', b'\n', ..] => (2, State::Head),
                [b'\r'] => return Ok(0),
                _ => {
                    let Some(end) = self.block_end(bytes)? else { return Ok(0) };
                    check_trailers(bytes.get(..end).unwrap_or_default())?;
                    (end, State::Head)
                }
            },
        };
        self.state = next;
        self.scanned = 0;
        Ok(passed)
    }

    /// Finds the end of a block of lines that an empty line terminates. Every line must end with CRLF.
    fn block_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let known = bytes.get(..MAX_HEAD_SIZE).unwrap_or(bytes);
        while let Some(end) = line_end(known.get(self.scanned..).unwrap_or_default(), MAX_HEAD_SIZE)? {
            self.scanned += end;
            if end == 2 {
                return Ok(Some(self.scanned));
            }
        }
        if bytes.len() >= MAX_HEAD_SIZE {
            return Err(Violation { status: 431, message: "the request's head is larger than 64 KiB" });
        }
        Ok(None)
    }
}

fn take(bytes: &[u8], left: u64) -> (usize, u64) {
    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (passed, left - passed as u64)
}

fn bad(message: &'static str) -> Violation {
    Violation { status: 400, message }
}

/// Finds the end of the first line, including its CRLF.
fn line_end(bytes: &[u8], max_length: usize) -> Result<Option<usize>, Violation> {
    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    match bytes.iter().position(ends) {
        None if bytes.len() >= max_length => Err(Violation { status: 431, message: "a line is too long" }),
        None => Ok(None),
        Some(at) => match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
            (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), _) => Err(bad("a carriage return is not followed by a line feed")),
            (Some(b'\n'), _) => Err(bad("a line feed is not preceded by a carriage return")),
            _ => Err(bad("the head contains a NUL byte")),
        },
    }
}

fn parse_head(head: &[u8]) -> Result<(Framing, HeaderCaseMap), Violation> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Violation { status: 431, message: "the request has more than 100 headers" });
        }
        Err(httparse::Error::Version) => {
            return Err(Violation { status: 505, message: "the request is not HTTP/1.1 or HTTP/1.0" });
        }
        Err(httparse::Error::HeaderName) => {
            return Err(bad("a header's name is not valid, or its line is a continuation"));
        }
        Err(httparse::Error::HeaderValue) => return Err(bad("a header's value holds a control character")),
        _ => return Err(bad("the request line is not valid")),
    }
    let is_http11 = request.version == Some(1);
    let (mut length, mut chunked, mut upgrade, mut hosts) = (None, false, false, 0);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            if length.is_some() {
                return Err(bad("there is more than one Content-Length"));
            }
            length = Some(digits(header.value).ok_or(bad("Content-Length is not a number"))?);
        } else if is("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(bad("the only Transfer-Encoding is 'chunked', once"));
            }
            chunked = true;
        } else if is("upgrade") {
            upgrade = true;
        } else if is("host") {
            hosts += 1;
        }
    }
    if hosts > 1 {
        return Err(bad("more than one Host header"));
    }
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(bad("Content-Length and Transfer-Encoding conflict")),
        (_, true) if !is_http11 => return Err(bad("HTTP/1.0 has no Transfer-Encoding")),
        _ if upgrade => Framing::Upgrade,
        (_, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok((framing, HeaderCaseMap::new(request.headers.iter().map(|header| header.name))))
}

/// Parses a length that consists of digits only and fits a body.
fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| all)?.parse().ok()
}

/// Parses a chunk-size line. Extensions are allowed and ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let wrong = bad("a chunk's size is not valid");
    let line = line.strip_suffix(b"\r\n").ok_or(wrong)?;
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extension) = line.split_at_checked(end).ok_or(wrong)?;
    let extension = extension.trim_ascii_start();
    if size.is_empty() || size.len() > 15 || !(extension.is_empty() || extension.starts_with(b";")) {
        return Err(wrong);
    }
    if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(wrong);
    }
    std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(wrong)
}

/// Rejects trailers that would change the framing or routing of the request.
fn check_trailers(block: &[u8]) -> Result<(), Violation> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let Ok(Status::Complete((_, trailers))) = httparse::parse_headers(block, &mut headers) else {
        return Err(bad("the trailers are not valid"));
    };
    if trailers.iter().any(|trailer| hop_by_hop::is_framing(trailer.name)) {
        return Err(bad("a trailer frames or routes the request"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
