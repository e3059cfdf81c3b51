//! For random secrets, encodings, places, chunkings and compressions: no answer that reaches the agent holds the
//! secret in any known encoding, and one without it is unchanged to the byte.

use async_compression::tokio::bufread;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::ext::ReasonPhrase;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::patterns::MARKER;
use super::patterns::tests::patterns;
use super::{Conversation, Redactor};
use crate::guess_detector::RedactionReport;
use crate::test_encoders::ENCODERS;
use agentsecrets_types::body::Body;

/// The part of a response in which a server repeats a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Event,
    Line,
    Message,
    Header,
    Trailer,
    Reason,
    WebSocket,
    Ping,
}

/// An answer that says `text` in that place.
struct Case {
    place: Place,
    coding: &'static str,
    chunk: usize,
}

/// The text that reaches the agent from a response with `text`, and whether something was removed.
fn seen(secret: &[u8], case: &Case, text: &[u8]) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let patterns = patterns(&[secret]);
    let chunks = |bytes: &[u8]| bytes.chunks(case.chunk).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    if matches!(case.place, Place::WebSocket | Place::Ping) {
        let report = RedactionReport::default();
        let mut conversation = Conversation::new(patterns, report.clone());
        let mut out = Vec::new();
        if case.place == Place::Ping {
            out.extend_from_slice(&conversation.whole(Bytes::copy_from_slice(text)));
        } else {
            for chunk in chunks(text) {
                out.extend_from_slice(&conversation.part(chunk, false));
            }
            out.extend_from_slice(&conversation.part(Bytes::new(), true));
        }
        return (out, report.redacted());
    }
    runtime.block_on(async {
        let (mut body, mut trailers) = (b"plain".to_vec(), None);
        let mut answer = Response::new(());
        let kind = match case.place {
            Place::Event => "text/event-stream",
            Place::Line => "application/x-ndjson",
            Place::Message => "application/grpc",
            _ => "text/plain",
        };
        answer.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        let header = || HeaderValue::from_bytes(text).unwrap();
        match case.place {
            Place::Body => body = text.to_vec(),
            Place::Event => body = [b"data: ", text, b"\n\ndata: more\n\n"].concat(),
            Place::Line => body = [text, b"\n{}\n"].concat(),
            Place::Message => {
                let header = [&[0][..], &(text.len() as u32).to_be_bytes()].concat();
                body = [&header, text, b"\0\0\0\0\x02ok"].concat();
            }
            Place::Header => drop(answer.headers_mut().insert("x-echo", header())),
            Place::Trailer => trailers = Some(HeaderMap::from_iter([("x-echo".parse().unwrap(), header())])),
            Place::Reason => {
                drop(answer.extensions_mut().insert(ReasonPhrase::try_from(text.to_vec()).unwrap()));
            }
            Place::WebSocket | Place::Ping => {}
        }
        let body = encode(case.coding, &body).await;
        if !case.coding.is_empty() {
            answer.headers_mut().insert("content-encoding", HeaderValue::from_static(case.coding));
        }
        let frames = chunks(&body).into_iter().map(Frame::data).chain(trailers.map(Frame::trailers)).map(Ok);
        let stream: Body =
            StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
        let redactor = Redactor::new(patterns, Method::GET, "api.test");
        let (answer, report) = redactor.redact(answer.map(|()| stream)).await.unwrap();
        let (parts, body) = answer.into_parts();
        let collected = body.collect().await.unwrap();
        let trailer = collected.trailers().and_then(|trailers| trailers.get("x-echo").cloned());
        let reason = parts.extensions.get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        let out = match case.place {
            Place::Header => parts.headers["x-echo"].as_bytes().to_vec(),
            Place::Trailer => trailer.unwrap().as_bytes().to_vec(),
            Place::Reason => reason.unwrap_or_default(),
            _ => collected.to_bytes().to_vec(),
        };
        (out, report.redacted())
    })
}

async fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "" => out.extend_from_slice(text),
        "gzip" => drop(bufread::GzipEncoder::new(text).read_to_end(&mut out).await.unwrap()),
        "deflate" => drop(bufread::ZlibEncoder::new(text).read_to_end(&mut out).await.unwrap()),
        "br" => drop(bufread::BrotliEncoder::new(text).read_to_end(&mut out).await.unwrap()),
        _ => drop(bufread::ZstdEncoder::new(text).read_to_end(&mut out).await.unwrap()),
    }
    out
}

fn cases() -> impl Strategy<Value = Case> {
    use Place::*;
    let places = vec![Body, Body, Event, Line, Message, Header, Trailer, Reason, WebSocket, Ping];
    let codings = vec!["", "gzip", "deflate", "br", "zstd"];
    (proptest::sample::select(places), proptest::sample::select(codings), 1usize..900)
        .prop_map(|(place, coding, chunk)| Case { place, coding, chunk })
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} in chunks of {}", self.place, self.coding, self.chunk)
    }
}

/// A secret of any kind: what generators make, what people make up, and bytes.
fn secrets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[A-Za-z0-9_-]{12,80}".prop_map(String::into_bytes),
        "[ -~]{12,60}".prop_map(String::into_bytes),
        "[a-z\u{e0}-\u{ff}\u{430}-\u{44f}]{12,30}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 12..50),
    ]
    .prop_map(|secret| secret.trim_ascii().to_vec())
    .prop_filter("what folding leaves out is no secret", |secret| {
        let counts = secret.iter().filter(|byte| !b"\0\r\n\\=\t ".contains(byte)).count();
        counts >= 10 && !secret.contains(&b'\n') && !secret.contains(&b'\r') && !secret.starts_with(b"{")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_response_holds_no_encoding_of_secret(
        secret in secrets(),
        which in 0..ENCODERS.len(),
        case in cases(),
        before in "[ -~]{0,40}",
        after in "[ -~]{0,40}",
    ) {
        let (name, echo) = ENCODERS[which];
        // What these write is not the value, where it is no text.
        let is_text = std::str::from_utf8(&secret).is_ok();
        prop_assume!(is_text || !["JSON", "HTML", "UTF-16"].iter().any(|kind| name.contains(kind)));
        let text = [before.as_bytes(), b" ", &echo(&secret), b" ", after.as_bytes()].concat();
        let in_header = matches!(case.place, Place::Header | Place::Trailer | Place::Reason);
        prop_assume!(!in_header || HeaderValue::from_bytes(&text).is_ok());
        prop_assume!(case.place != Place::Reason || ReasonPhrase::try_from(text.clone()).is_ok());
        let (out, redacted) = seen(&secret, &case, &text);
        prop_assert!(redacted, "{} passes in {:?}", name, case);
        let bare = String::from_utf8_lossy(&out).replace(std::str::from_utf8(MARKER).unwrap(), "\u{1}");
        for (name, echo) in ENCODERS.iter().filter(|(name, _)| is_text || !name.contains("UTF")) {
            let echo = echo(&secret);
            let left = bare.as_bytes().windows(echo.len()).any(|window| window == echo);
            prop_assert!(!left, "{} is left in {:?}", name, case);
        }
    }

    #[test]
    fn random_response_without_secret_is_unchanged(
        secret in secrets(),
        case in cases(),
        text in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..3000),
            "([ -~]{0,80}\n){0,30}".prop_map(String::into_bytes),
            "[ -~]{0,300}".prop_map(String::into_bytes),
        ],
    ) {
        let in_header = matches!(case.place, Place::Header | Place::Trailer | Place::Reason);
        prop_assume!(!in_header || HeaderValue::from_bytes(&text).is_ok());
        prop_assume!(case.place != Place::Reason || ReasonPhrase::try_from(text.clone()).is_ok());
        let (out, redacted) = seen(&secret, &case, &text);
        prop_assert!(!redacted);
        let wanted = match case.place {
            Place::Event => [b"data: ", &text[..], b"\n\ndata: more\n\n"].concat(),
            Place::Line => [&text[..], b"\n{}\n"].concat(),
            Place::Message => {
                [&[0][..], &(text.len() as u32).to_be_bytes(), &text, b"\0\0\0\0\x02ok"].concat()
            }
            _ => text,
        };
        prop_assert!(out == wanted, "{:?}", case);
    }
}
