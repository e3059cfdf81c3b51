//! Bodies in AWS's signed chunks, signed anew while they stream: each chunk's signature stands before it and
//! covers the signature before, so one chunk at a time is held. The chunks stay as long as they were, and
//! with them the length that the client told. Whatever is not framed so breaks the body off.

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

use crate::inject::aws_signature::Scheme;
use crate::types::body::{Body, BodyError};
use crate::types::hex::hex;

/// Chunks without signatures: there is nothing to sign anew.
pub(super) const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// The largest chunk, in bytes.
const LARGEST: usize = 16 << 20;
/// The longest line before a chunk, and all lines after the last one.
const LINE: usize = 512;
const TRAILER: usize = 16 << 10;

/// How chunks are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    scheme: Scheme,
    has_trailer: bool,
}

impl Kind {
    /// What `X-Amz-Content-Sha256` says of it, for a signature of `scheme`.
    pub(super) fn of(hash: &str, scheme: Scheme) -> Option<Self> {
        let start = match scheme {
            Scheme::V4 => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Scheme::V4a => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        };
        match hash.strip_prefix(start)? {
            "" => Some(Self { scheme, has_trailer: false }),
            "-TRAILER" => Some(Self { scheme, has_trailer: true }),
            _ => None,
        }
    }

    /// How long a signature is: those of version 4A are filled up with asterisks.
    fn length(self) -> usize {
        match self.scheme {
            Scheme::V4 => 64,
            Scheme::V4a => 144,
        }
    }
}

/// Signs one chunk after another.
pub(super) struct Key {
    kind: Kind,
    identity: Identity,
    regions: String,
    service: String,
    now: SystemTime,
}

impl Key {
    pub(super) fn new(
        kind: Kind,
        identity: Identity,
        regions: String,
        service: String,
        now: SystemTime,
    ) -> Self {
        Self { kind, identity, regions, service, now }
    }

    fn chunk(&self, before: &str, data: &Bytes) -> Option<String> {
        match self.kind.scheme {
            Scheme::V4 => Some(v4::sign_chunk(data, before, &self.v4()?).ok()?.signature().to_owned()),
            Scheme::V4a => self.v4a("PAYLOAD", before, &format!("{}\n{}", sha256(b""), sha256(data))),
        }
    }

    fn trailer(&self, before: &str, trailer: &Headers) -> Option<String> {
        match self.kind.scheme {
            Scheme::V4 => Some(v4::sign_trailer(trailer, before, &self.v4()?).ok()?.signature().to_owned()),
            Scheme::V4a => {
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

    /// The library signs requests by version 4A, but no chunks: only its cryptography is left to use.
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
pub(super) struct Chunks {
    body: Body,
    held: BytesMut,
    at: At,
    key: Key,
    /// The last signature.
    signature: String,
}

/// What comes next.
enum At {
    /// A chunk with the line before it.
    Chunk,
    /// What stands after the last chunk.
    Trailer,
    /// Nothing.
    End,
}

impl Chunks {
    /// `body` with chunks signed by `key`, the first one after `seed`.
    pub(super) fn signed(body: Body, key: Key, seed: String) -> Body {
        Self { body, held: BytesMut::new(), at: At::Chunk, key, signature: seed }.boxed_unsync()
    }

    /// What can leave of what is held; nothing where more must come first.
    fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.at {
            At::Chunk => self.chunk(),
            At::Trailer if self.held.len() > TRAILER => {
                Err(BodyError::Chunks("what follows them is too long"))
            }
            At::Trailer => Ok(None),
            At::End if self.held.is_empty() => Ok(None),
            At::End => Err(BodyError::Chunks("something follows their end")),
        }
    }

    fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let start = self.held.get(..LINE.min(self.held.len())).unwrap_or_default();
        let Some(end) = find(start, b"\r\n") else {
            let too_long = self.held.len() >= LINE;
            return if too_long {
                Err(BodyError::Chunks("no chunk begins where one should"))
            } else {
                Ok(None)
            };
        };
        let (length, size) = sizes(start.get(..end).unwrap_or_default(), self.key.kind)
            .ok_or(BodyError::Chunks("the line before a chunk is no 'size;chunk-signature=…'"))?;
        if size > LARGEST {
            return Err(BodyError::Chunks("a chunk is larger than 16 MiB"));
        }
        let is_last = size == 0;
        let behind = end + 2 + size + if is_last { 0 } else { 2 };
        if self.held.len() < behind {
            self.held.reserve(behind - self.held.len());
            return Ok(None);
        }
        let mut whole = self.held.split_to(behind).freeze();
        let line = whole.split_to(end + 2);
        let data = whole.split_to(size);
        if !is_last && *whole != *b"\r\n" {
            return Err(BodyError::Chunks("a chunk is longer than it says"));
        }
        let signature = self.key.chunk(&self.signature, &data).ok_or(BodyError::Chunks(UNSIGNABLE))?;
        let mut out = BytesMut::with_capacity(behind);
        out.extend_from_slice(line.get(..length).unwrap_or_default());
        out.extend_from_slice(b";chunk-signature=");
        out.extend_from_slice(padded(&signature, self.key.kind).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&data);
        out.extend_from_slice(&whole);
        self.signature = signature;
        if is_last {
            self.at = At::Trailer;
        }
        Ok(Some(out.freeze()))
    }

    /// The body has ended: what stands after the last chunk is all there.
    fn trailer(&mut self) -> Result<Bytes, BodyError> {
        self.at = At::End;
        let lines = self.held.split().freeze();
        if !self.key.kind.has_trailer {
            let ends = *lines == *b"\r\n";
            return if ends { Ok(lines) } else { Err(BodyError::Chunks("they do not end as they should")) };
        }
        let damaged = || BodyError::Chunks("the trailer is damaged, or has no signature");
        let text = std::str::from_utf8(&lines).map_err(|_| damaged())?;
        let (before, after) = text.split_once(SIGNATURE).ok_or_else(damaged)?;
        let (old, end) = after.split_at_checked(self.key.kind.length()).ok_or_else(damaged)?;
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
        let signature = self.key.trailer(&self.signature, &headers).ok_or(BodyError::Chunks(UNSIGNABLE))?;
        let signature = padded(&signature, self.key.kind);
        Ok(format!("{before}{SIGNATURE}{signature}{end}").into())
    }
}

const SIGNATURE: &str = "x-amz-trailer-signature:";
const UNSIGNABLE: &str = "the key does not sign";

/// The length of the chunk's size as it is written, and that size.
fn sizes(line: &[u8], kind: Kind) -> Option<(usize, usize)> {
    let at = find(line, b";chunk-signature=")?;
    let size = std::str::from_utf8(line.get(..at)?).ok()?;
    let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
    let signature = line.get(at + b";chunk-signature=".len()..)?;
    (digits && is_signature(signature, kind)).then_some(())?;
    Some((at, usize::from_str_radix(size, 16).ok()?))
}

fn is_signature(text: &[u8], kind: Kind) -> bool {
    text.len() == kind.length() && text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'*')
}

fn padded(signature: &str, kind: Kind) -> String {
    format!("{signature:*<width$}", width = kind.length())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.next() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held.extend_from_slice(&data),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    return Poll::Ready(match self.at {
                        At::Chunk => Some(Err(BodyError::Chunks("they break off"))),
                        At::Trailer => Some(self.trailer().map(Frame::data)),
                        At::End => None,
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

    fn key(has_trailer: bool) -> Key {
        let identity =
            Keys::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_369_353_600);
        let kind = Kind { scheme: Scheme::V4, has_trailer };
        Key::new(kind, identity.into(), "us-east-1".to_owned(), "s3".to_owned(), time)
    }

    /// `text` cut at `cuts`, with every chunk signed anew after `seed`.
    fn signed(text: &[u8], cuts: &[usize], seed: &str, has_trailer: bool) -> Result<Vec<u8>, BodyError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        for cut in cuts {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            parts.push(Ok(Frame::data(Bytes::copy_from_slice(part))));
            rest = after;
        }
        parts.push(Ok(Frame::data(Bytes::copy_from_slice(rest))));
        let body = StreamBody::new(futures_util::stream::iter(parts)).boxed_unsync();
        let chunks = Chunks::signed(body, key(has_trailer), seed.to_owned());
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
    fn the_example_of_awss_manual_is_signed_as_there() {
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
    fn what_is_not_framed_so_breaks_off() {
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
        fn cutting_changes_nothing_and_the_length_stays(
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
