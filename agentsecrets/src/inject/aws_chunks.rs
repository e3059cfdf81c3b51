//! Re-signs bodies in AWS's signed chunks while they stream. Each chunk's signature precedes it and
//! covers the previous signature, so one chunk at a time is buffered. Chunk lengths and the announced
//! content length do not change. Malformed framing aborts the body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use aws_credential_types::Credentials as Keys;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::sign::{v4, v4a};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::http::Headers;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::inject::aws_signature::SignatureVersion;
use crate::types::body::{Body, BodyError};
use crate::types::hex::hex;

/// Payload hash of chunks without signatures, which need no re-signing.
pub(super) const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Maximum size of a chunk, in bytes.
const MAX_CHUNK_SIZE: usize = 16 << 20;
/// Maximum sizes of the line before a chunk and of all lines after the last chunk, in bytes.
const MAX_CHUNK_LINE: usize = 512;
const MAX_TRAILER_SIZE: usize = 16 << 10;

/// Signature scheme of the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkSigning {
    version: SignatureVersion,
    has_trailer: bool,
}

impl ChunkSigning {
    /// Parses the value of `X-Amz-Content-Sha256`, for a signature of `version`.
    pub(super) fn from_payload_hash(hash: &str, version: SignatureVersion) -> Option<Self> {
        let start = match version {
            SignatureVersion::V4 => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            SignatureVersion::V4a => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        };
        match hash.strip_prefix(start)? {
            "" => Some(Self { version, has_trailer: false }),
            "-TRAILER" => Some(Self { version, has_trailer: true }),
            _ => None,
        }
    }

    /// Length of a signature. Version 4A pads its signatures with asterisks.
    fn signature_length(self) -> usize {
        match self.version {
            SignatureVersion::V4 => 64,
            SignatureVersion::V4a => 144,
        }
    }
}

/// Signs one chunk after another.
pub(super) struct ChunkSigner {
    kind: ChunkSigning,
    identity: Identity,
    regions: String,
    service: String,
    now: SystemTime,
}

impl ChunkSigner {
    pub(super) fn new(
        kind: ChunkSigning,
        identity: Identity,
        regions: String,
        service: String,
        now: SystemTime,
    ) -> Self {
        Self { kind, identity, regions, service, now }
    }

    fn sign_chunk(&self, before: &str, data: &Bytes) -> Option<String> {
        match self.kind.version {
            SignatureVersion::V4 => {
                Some(v4::sign_chunk(data, before, &self.v4()?).ok()?.signature().to_owned())
            }
            SignatureVersion::V4a => {
                self.v4a("PAYLOAD", before, &format!("{}\n{}", sha256(b""), sha256(data)))
            }
        }
    }

    fn sign_trailer(&self, before: &str, trailer: &Headers) -> Option<String> {
        match self.kind.version {
            SignatureVersion::V4 => {
                Some(v4::sign_trailer(trailer, before, &self.v4()?).ok()?.signature().to_owned())
            }
            SignatureVersion::V4a => {
                let mut lines: Vec<String> = trailer
                    .iter()
                    .map(|(name, value)| format!("{}:{}\n", name.to_lowercase(), value.trim()))
                    .collect();
                lines.sort();
                self.v4a("TRAILER", before, &sha256(lines.concat().as_bytes()))
            }
        }
    }

    fn v4(&self) -> Option<v4::SigningParams<'_, ()>> {
        let builder = v4::SigningParams::builder().identity(&self.identity).region(&self.regions);
        builder.name(&self.service).time(self.now).settings(()).build().ok()
    }

    /// aws-sigv4 signs requests by version 4A but not chunks, so this uses its cryptography only.
    fn v4a(&self, what: &str, before: &str, hash: &str) -> Option<String> {
        let keys = self.identity.data::<Keys>()?;
        let key = v4a::generate_signing_key(keys.access_key_id(), keys.secret_access_key());
        let time = jiff::Timestamp::try_from(self.now).ok()?.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = time.get(..8)?;
        let text = format!(
            "AWS4-ECDSA-P256-SHA256-{what}\n{time}\n{day}/{}/aws4_request\n{before}\n{hash}",
            self.service
        );
        Some(v4a::calculate_signature(key, text.as_bytes()))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A body whose chunks are signed anew.
pub(super) struct ResignedChunks {
    body: Body,
    buffer: BytesMut,
    state: State,
    key: ChunkSigner,
    /// The previous signature.
    signature: String,
}

/// The expected input.
enum State {
    /// A chunk and the line before it.
    Chunk,
    /// The lines after the last chunk.
    Trailer,
    /// Nothing.
    End,
}

impl ResignedChunks {
    /// Re-signs the chunks of `body` with `key`. `seed` is the signature of the request.
    pub(super) fn wrap(body: Body, key: ChunkSigner, seed: String) -> Body {
        Self { body, buffer: BytesMut::new(), state: State::Chunk, key, signature: seed }.boxed_unsync()
    }

    /// Returns the next output, or `None` if more input is needed.
    fn next_output(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.state {
            State::Chunk => self.chunk(),
            State::Trailer if self.buffer.len() > MAX_TRAILER_SIZE => {
                Err(BodyError::Chunks("their trailer is too long"))
            }
            State::Trailer => Ok(None),
            State::End if self.buffer.is_empty() => Ok(None),
            State::End => Err(BodyError::Chunks("bytes follow the last chunk")),
        }
    }

    fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let start = self.buffer.get(..MAX_CHUNK_LINE.min(self.buffer.len())).unwrap_or_default();
        let Some(end) = find(start, b"\r\n") else {
            let too_long = self.buffer.len() >= MAX_CHUNK_LINE;
            return if too_long {
                Err(BodyError::Chunks("a chunk does not begin where expected"))
            } else {
                Ok(None)
            };
        };
        let (length, size) = parse_chunk_line(start.get(..end).unwrap_or_default(), self.key.kind)
            .ok_or(BodyError::Chunks("the line before a chunk is not 'size;chunk-signature=…'"))?;
        if size > MAX_CHUNK_SIZE {
            return Err(BodyError::Chunks("a chunk is larger than 16 MiB"));
        }
        let is_last = size == 0;
        let behind = end + 2 + size + if is_last { 0 } else { 2 };
        if self.buffer.len() < behind {
            self.buffer.reserve(behind - self.buffer.len());
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(behind).freeze();
        let line = whole.split_to(end + 2);
        let data = whole.split_to(size);
        if !is_last && *whole != *b"\r\n" {
            return Err(BodyError::Chunks("a chunk is longer than its size"));
        }
        let signature = self.key.sign_chunk(&self.signature, &data).ok_or(BodyError::Chunks(UNSIGNABLE))?;
        let mut out = BytesMut::with_capacity(behind);
        out.extend_from_slice(line.get(..length).unwrap_or_default());
        out.extend_from_slice(b";chunk-signature=");
        out.extend_from_slice(pad_signature(&signature, self.key.kind).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&data);
        out.extend_from_slice(&whole);
        self.signature = signature;
        if is_last {
            self.state = State::Trailer;
        }
        Ok(Some(out.freeze()))
    }

    /// Re-signs the trailer, which is complete because the body has ended.
    fn trailer(&mut self) -> Result<Bytes, BodyError> {
        self.state = State::End;
        let lines = self.buffer.split().freeze();
        if !self.key.kind.has_trailer {
            let ends = *lines == *b"\r\n";
            return if ends { Ok(lines) } else { Err(BodyError::Chunks("their end is malformed")) };
        }
        let damaged = || BodyError::Chunks("the trailer is damaged, or has no signature");
        let text = std::str::from_utf8(&lines).map_err(|_| damaged())?;
        let (before, after) = text.split_once(SIGNATURE).ok_or_else(damaged)?;
        let (old, end) = after.split_at_checked(self.key.kind.signature_length()).ok_or_else(damaged)?;
        if !is_signature(old.as_bytes(), self.key.kind)
            || !end.bytes().all(|byte| matches!(byte, b'\r' | b'\n'))
        {
            return Err(damaged());
        }
        let mut headers = Headers::new();
        for line in before.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(damaged)?;
            headers.try_append(name.to_ascii_lowercase(), value.to_owned()).map_err(|_| damaged())?;
        }
        let signature =
            self.key.sign_trailer(&self.signature, &headers).ok_or(BodyError::Chunks(UNSIGNABLE))?;
        let signature = pad_signature(&signature, self.key.kind);
        Ok(format!("{before}{SIGNATURE}{signature}{end}").into())
    }
}

const SIGNATURE: &str = "x-amz-trailer-signature:";
const UNSIGNABLE: &str = "the key does not sign";

/// Parses a chunk line. Returns the length of the size's digits, and the size.
fn parse_chunk_line(line: &[u8], kind: ChunkSigning) -> Option<(usize, usize)> {
    let at = find(line, b";chunk-signature=")?;
    let size = std::str::from_utf8(line.get(..at)?).ok()?;
    let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
    let signature = line.get(at + b";chunk-signature=".len()..)?;
    (digits && is_signature(signature, kind)).then_some(())?;
    Some((at, usize::from_str_radix(size, 16).ok()?))
}

fn is_signature(text: &[u8], kind: ChunkSigning) -> bool {
    text.len() == kind.signature_length() && text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'*')
}

fn pad_signature(signature: &str, kind: ChunkSigning) -> String {
    format!("{signature:*<width$}", width = kind.signature_length())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl http_body::Body for ResignedChunks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.next_output() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    return Poll::Ready(match self.state {
                        State::Chunk => Some(Err(BodyError::Chunks("they break off"))),
                        State::Trailer => Some(self.trailer().map(Frame::data)),
                        State::End => None,
                    });
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;

    fn key(has_trailer: bool) -> ChunkSigner {
        let identity =
            Keys::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_369_353_600);
        let kind = ChunkSigning { version: SignatureVersion::V4, has_trailer };
        ChunkSigner::new(kind, identity.into(), "us-east-1".to_owned(), "s3".to_owned(), time)
    }

    /// Re-signs `text`, segmented at `cuts`.
    fn signed(text: &[u8], cuts: &[usize], seed: &str, has_trailer: bool) -> Result<Vec<u8>, BodyError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        for cut in cuts {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            parts.push(Ok(Frame::data(Bytes::copy_from_slice(part))));
            rest = after;
        }
        parts.push(Ok(Frame::data(Bytes::copy_from_slice(rest))));
        let body = StreamBody::new(futures_util::stream::iter(parts)).boxed_unsync();
        let chunks = ResignedChunks::wrap(body, key(has_trailer), seed.to_owned());
        let mut stream = http_body_util::BodyStream::new(chunks);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut out = Vec::new();
            while let Some(frame) = stream.next().await {
                out.extend_from_slice(&frame?.into_data().unwrap());
            }
            Ok(out)
        })
    }

    fn framed(chunks: &[&[u8]], signatures: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for (chunk, signature) in chunks.iter().zip(signatures) {
            out.extend_from_slice(format!("{:x};chunk-signature={signature}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    const DUMMY: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

    #[test]
    fn aws_manual_example_is_signed() {
        let chunks: [&[u8]; 3] = [&[b'a'; 65536], &[b'a'; 1024], b""];
        let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
        let right = [
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ];
        let out = signed(&framed(&chunks, &[DUMMY; 3]), &[], seed, false).unwrap();
        assert!(out == framed(&chunks, &right));
    }

    #[test]
    fn malformed_chunks_abort_the_body() {
        let good = framed(&[b"abc", b""], &[DUMMY; 2]);
        let text = String::from_utf8(good.clone()).unwrap();
        assert_eq!(signed(&good, &[], DUMMY, false).unwrap().len(), good.len());
        for bad in [
            String::new(),
            text.replace("3;", "4;"),
            text.replace("3;", "ffffffffffffffff;"),
            text.replace("3;", "-3;"),
            text.replacen(DUMMY, "00", 1),
            text.replacen(";chunk-signature", ";signature", 1),
            text.trim_end().to_owned(),
            format!("{text}more"),
            "x".repeat(600),
        ] {
            assert!(signed(bad.as_bytes(), &[], DUMMY, false).is_err(), "{bad:?}");
        }
        assert!(signed(&good, &[], DUMMY, true).is_err(), "a trailer is missing");
    }

    proptest! {
        #[test]
        fn segmentation_is_irrelevant_and_length_stays(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..4),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let chunks: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).chain([&b""[..]]).collect();
            let text = framed(&chunks, &vec![DUMMY; chunks.len()]);
            let whole = signed(&text, &[], DUMMY, false).unwrap();
            prop_assert_eq!(whole.len(), text.len());
            prop_assert!(signed(&text, &cuts, DUMMY, false).unwrap() == whole);
        }

        #[test]
        fn hostile_bodies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), trailer in any::<bool>()) {
            let _ = signed(&bytes, &[3, 5], DUMMY, trailer);
            let line = framed(&[&bytes], &[DUMMY]);
            let _ = signed(&line, &[70], DUMMY, trailer);
        }
    }
}
