//! Fuzz targets for responses that contain secrets in any encoding, segmentation and content coding.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::input::{Input, block_on, contains};
use crate::redact::Redactor;
use crate::redact::patterns::{MARKER, Patterns};
use crate::redact::stream::{StreamRedactor, Unit};
use crate::redact::test_encoders::ENCODERS;
use crate::types::body::{Body, BodyError};
use crate::types::secret::Secret;

/// A set of secrets, and the encodings of them that must not survive.
struct Set {
    patterns: Arc<Patterns>,
    encodings: Vec<Vec<u8>>,
}

static SETS: LazyLock<Vec<Set>> = LazyLock::new(|| {
    let long: String = (0..300).map(|n| format!("{n:03}")).collect();
    [
        vec!["sk_live_4eC39HqLyjWDarjtT1zdp7dc"],
        vec!["p\"a/s&s <w>\u{f6}r+d\\'", "user:hunter2hunter2"],
        vec!["aaaaaaaa", "abababab", "abcdefgh", "efghijkl", "cdef"],
        vec![long.as_str(), "4711"],
    ]
    .map(|values| {
        let secrets: Vec<Secret> =
            values.iter().map(|value| Secret::new(value.as_bytes().to_vec())).collect();
        Set {
            patterns: Patterns::build(&secrets),
            encodings: values.iter().flat_map(|value| encodings(value)).collect(),
        }
    })
    .into()
});

/// Encodings that redaction guarantees for `value`.
fn encodings(value: &str) -> Vec<Vec<u8>> {
    let echoes = ENCODERS.iter().map(|(_, echo)| echo(value.as_bytes()));
    echoes.take(if value.len() < 8 { 1 } else { ENCODERS.len() }).collect()
}

/// Reads the number of a set, a count of cuts, the cuts, and text in which a byte 1 and a number insert
/// an encoded secret.
pub(super) fn redact(bytes: &[u8]) {
    let mut input = Input(bytes);
    let set = &SETS[usize::from(input.byte()) % SETS.len()];
    let count = usize::from(input.byte()) % 32;
    let cuts = input.take(count);
    let text = text(set, &mut input);
    let (whole, found) = redact_chunks(set, &text, &[]);
    if !found {
        assert_eq!(whole, text);
    }
    assert_no_secret(set, &whole);
    assert_eq!(redact_chunks(set, &text, cuts), (whole.clone(), found), "cut by {cuts:?}");
    if text.len() < 2000 {
        assert_eq!(redact_chunks(set, &text, &[1]), (whole, found), "cut everywhere");
    }
}

fn text(set: &Set, input: &mut Input<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    while !input.0.is_empty() && text.len() < 64 << 10 {
        match input.byte() {
            1 => text.extend_from_slice(&set.encodings[usize::from(input.byte()) % set.encodings.len()]),
            byte => text.push(byte),
        }
    }
    text
}

/// Scrubs the text in chunks of these sizes, repeated.
fn redact_chunks(set: &Set, text: &[u8], sizes: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = StreamRedactor::new(set.patterns.clone(), Unit::Whole);
    let mut out = Vec::new();
    for chunk in chunks(text, sizes) {
        out.extend_from_slice(&stream.push(chunk));
    }
    out.extend_from_slice(&stream.finish());
    (out, stream.found())
}

fn chunks(mut text: &[u8], sizes: &[u8]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut sizes = sizes.iter().filter(|size| **size > 0).cycle();
    while !text.is_empty() {
        let size = sizes.next().map_or(text.len(), |size| usize::from(*size)).min(text.len());
        let (chunk, rest) = text.split_at(size);
        chunks.push(Bytes::copy_from_slice(chunk));
        text = rest;
    }
    chunks
}

fn assert_no_secret(set: &Set, out: &[u8]) {
    let mut rest = out;
    while !rest.is_empty() {
        let marker = rest.windows(MARKER.len()).position(|window| window == MARKER);
        let (piece, after) = rest.split_at(marker.unwrap_or(rest.len()));
        for form in &set.encodings {
            assert!(!contains(piece, form), "{:?} was left", String::from_utf8_lossy(form));
        }
        rest = after.get(MARKER.len()..).unwrap_or_default();
    }
}

/// Reads the numbers of a set, content type and content coding, a count of cuts, the cuts, and the body
/// of a response.
pub(super) fn decode(bytes: &[u8]) {
    let mut input = Input(bytes);
    let set = &SETS[usize::from(input.byte()) % SETS.len()];
    let kinds = ["text/plain", "text/event-stream", "application/grpc", "application/json"];
    let kind = kinds[usize::from(input.byte()) % kinds.len()];
    let codings = ["", "gzip", "deflate", "br", "zstd", "gzip, br", "zstd, gzip", "x-gzip, identity"];
    let coding = codings[usize::from(input.byte()) % codings.len()];
    let count = usize::from(input.byte()) % 32;
    let cuts = input.take(count);
    let body = if coding.is_empty() { text(set, &mut input) } else { input.0.to_vec() };
    let whole = redacted(set, kind, coding, &body, &[]);
    if let Some(whole) = &whole {
        assert_no_secret(set, whole);
    }
    let cut = redacted(set, kind, coding, &body, cuts);
    if kind == "text/event-stream" {
        // An event leaves before the next is known: a secret that continues in the next event is removed
        // from there on only.
        assert_eq!(cut.is_some(), whole.is_some(), "cut by {cuts:?}");
        cut.iter().for_each(|cut| assert_no_secret(set, cut));
    } else {
        assert_eq!(cut, whole, "cut by {cuts:?}");
    }
}

/// Returns the body that the agent gets, or `None` if it is rejected or breaks off.
fn redacted(set: &Set, kind: &str, coding: &str, body: &[u8], cuts: &[u8]) -> Option<Vec<u8>> {
    let frames = chunks(body, cuts).into_iter().map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)));
    let body: Body = StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
    let mut answer = Response::builder().header("content-type", kind);
    if !coding.is_empty() {
        answer = answer.header("content-encoding", coding);
    }
    let redactor = Redactor::new(set.patterns.clone(), Method::GET, "api.test");
    block_on(async {
        let (answer, _) = redactor.redact(answer.body(body).unwrap()).await.ok()?;
        assert!(!answer.headers().contains_key("content-encoding"));
        Some(answer.into_body().collect().await.ok()?.to_bytes().to_vec())
    })
}
