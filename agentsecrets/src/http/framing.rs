//! HTTP/1.1 read by the letter. What two readers could take for different requests is refused before the
//! HTTP library sees it: bare line feeds, folded headers, control characters, lengths that conflict.
//! It finds where requests begin and end, and passes judgement on their framing alone.

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Request, Status};

use crate::http::header_case::{Spelling, Spellings};

/// The largest request head, in bytes.
pub(super) const LARGEST_HEAD: usize = 64 * 1024;
/// How many headers a request may have.
pub(super) const MOST_HEADERS: usize = 100;
/// The longest line of a chunk's size, extensions included.
const LONGEST_CHUNK_LINE: usize = 1024;

/// Why a client is not listened to any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// 400, 408, 431 or 505.
    pub status: u16,
    /// What is wrong, for the client and the record.
    pub message: &'static str,
}

/// Follows one connection from request to request.
#[derive(Debug, Default)]
pub(super) struct Follower {
    state: State,
    /// Where the first line begins, of the bytes that did not pass yet, that has not been looked at: no line is
    /// read twice, however slowly the bytes come.
    looked_at: usize,
    spellings: Arc<Spellings>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request's head is to come.
    #[default]
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    /// The line with a chunk's size is to come.
    ChunkSize,
    /// So many bytes of a chunk are to come, then a line's end.
    Chunk(u64),
    /// The line's end after a chunk.
    ChunkEnd,
    /// Trailers, and the empty line after them.
    Trailers,
    /// What comes is no longer ours to read: another protocol was asked for.
    Raw,
}

/// What a head says of the bytes after it.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Upgrade,
}

impl Follower {
    /// Of a connection that is not read at all.
    pub(super) fn raw() -> Self {
        Self { state: State::Raw, ..Self::default() }
    }

    /// Of one that is read, and whose spellings are kept in `spellings`.
    pub(super) fn keeping(spellings: Arc<Spellings>) -> Self {
        Self { spellings, ..Self::default() }
    }

    /// Whether a request's head is what comes next.
    pub(super) fn is_at_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether everything passes.
    pub(super) fn is_raw(&self) -> bool {
        self.state == State::Raw
    }

    /// How many of `bytes` may be read on, and what is wrong with those after them. Heads and lines pass
    /// whole or not at all: what was not passed comes again, with more after it.
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
            State::Raw => return Ok(bytes.len()),
            // An empty line before a request is tolerated, as RFC 9112 asks.
            State::Head if bytes.starts_with(b"\r\n") => (2, State::Head),
            State::Head => {
                let Some(end) = self.block_end(bytes)? else { return Ok(0) };
                let (framing, spelling) = judge(bytes.get(..end).unwrap_or_default())?;
                self.spellings.push(spelling);
                let next = match framing {
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                    Framing::Upgrade => State::Raw,
                };
                (end, next)
            }
            State::Body(left) => {
                let (passed, left) = take(bytes, left);
                (passed, if left == 0 { State::Head } else { State::Body(left) })
            }
            State::ChunkSize => {
                let Some(end) = line_end(bytes, LONGEST_CHUNK_LINE)? else { return Ok(0) };
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
                    judge_trailers(bytes.get(..end).unwrap_or_default())?;
                    (end, State::Head)
                }
            },
        };
        self.state = next;
        self.looked_at = 0;
        Ok(passed)
    }

    /// Where lines end that an empty one follows. Every line ends with CR LF.
    fn block_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let known = bytes.get(..LARGEST_HEAD).unwrap_or(bytes);
        while let Some(end) = line_end(known.get(self.looked_at..).unwrap_or_default(), LARGEST_HEAD)? {
            self.looked_at += end;
            if end == 2 {
                return Ok(Some(self.looked_at));
            }
        }
        if bytes.len() >= LARGEST_HEAD {
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

/// Where the first line ends, its CR LF included.
fn line_end(bytes: &[u8], longest: usize) -> Result<Option<usize>, Violation> {
    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    match bytes.iter().position(ends) {
        None if bytes.len() >= longest => Err(Violation { status: 431, message: "a line is too long" }),
        None => Ok(None),
        Some(at) => match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
            (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), _) => Err(bad("a carriage return stands without its line feed")),
            (Some(b'\n'), _) => Err(bad("a line feed stands without its carriage return")),
            _ => Err(bad("a NUL byte stands in the head")),
        },
    }
}

fn judge(head: &[u8]) -> Result<(Framing, Spelling), Violation> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
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
        (_, true) if !is_http11 => return Err(bad("HTTP/1.0 knows no Transfer-Encoding")),
        _ if upgrade => Framing::Upgrade,
        (_, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok((framing, Spelling::new(request.headers.iter().map(|header| header.name))))
}

/// Digits and nothing else, within what a body can have.
fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| all)?.parse().ok()
}

/// The size in a chunk's first line. Extensions are allowed and mean nothing.
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

/// Trailers that would change what was said before are refused.
fn judge_trailers(block: &[u8]) -> Result<(), Violation> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let Ok(Status::Complete((_, trailers))) = httparse::parse_headers(block, &mut headers) else {
        return Err(bad("the trailers are not valid"));
    };
    let frames = |name: &str| {
        ["content-length", "transfer-encoding", "host", "connection", "upgrade", "trailer", "te"]
            .iter()
            .any(|framing| name.eq_ignore_ascii_case(framing))
    };
    if trailers.iter().any(|trailer| frames(trailer.name)) {
        return Err(bad("a trailer frames or routes the request"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
