//! The agent's view of a response that echoes its secret.

use async_compression::tokio::bufread;
use http_body_util::StreamBody;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;
use agentsecrets_types::secret::Secret;

const SECRET: &[u8] = b"hunter2/hunter2";
const MARKER: &[u8] = b"[REDACTED_BY_AGENTSECRETS]";

fn redactor(method: Method) -> Redactor {
    let patterns = Patterns::build(&[Secret::new(SECRET.to_vec())]);
    Redactor::new(patterns, method, "api.example.com")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A body of unknown length that comes in these chunks, then these trailers.
fn chunks(chunks: Vec<Bytes>, trailers: Option<HeaderMap>) -> Body {
    let frames = chunks.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers)).map(Ok);
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// A body that says what is sent into it, when it is sent.
fn pipe() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, Body) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| {
        receive.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    });
    (send, StreamBody::new(stream).boxed_unsync())
}

fn response(headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::builder();
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

struct Seen {
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
    redacted: bool,
}

async fn seen(method: Method, response: Response<Body>) -> Result<Seen, Rejection> {
    let (response, report) = redactor(method).redact(response).await?;
    let (parts, body) = response.into_parts();
    let collected = body
        .collect()
        .await
        .map_err(|error| Rejection::new(ErrorCode::UnreadableAnswer, format!("mid-stream: {error}")))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes().to_vec();
    Ok(Seen { headers: parts.headers, body, trailers, redacted: report.redacted() })
}

fn get(headers: &[(&str, &str)], body: Body) -> Result<Seen, Rejection> {
    runtime().block_on(seen(Method::GET, response(headers, body)))
}

/// `text` in a coding, made by the library itself.
fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    runtime().block_on(async {
        let mut out = Vec::new();
        match coding {
            "gzip" | "x-gzip" => bufread::GzipEncoder::new(text).read_to_end(&mut out).await,
            "deflate" => bufread::ZlibEncoder::new(text).read_to_end(&mut out).await,
            "raw" => bufread::DeflateEncoder::new(text).read_to_end(&mut out).await,
            "br" => bufread::BrotliEncoder::new(text).read_to_end(&mut out).await,
            "zstd" => bufread::ZstdEncoder::new(text).read_to_end(&mut out).await,
            other => panic!("{other}"),
        }
        .unwrap();
        out
    })
}

#[test]
fn small_echo_gets_exact_length() {
    let seen = get(
        &[("content-length", "21"), ("etag", "\"x\""), ("digest", "sha-256=x")],
        full(&b"key: hunter2/hunter2\n"[..]),
    )
    .unwrap();
    assert_eq!(seen.body, b"key: [REDACTED_BY_AGENTSECRETS]\n");
    assert_eq!(seen.headers["content-length"], "32");
    assert_eq!(seen.headers["x-as-redacted"], "true");
    assert_eq!(seen.headers["etag"], "W/\"x\"");
    assert!(!seen.headers.contains_key("digest") && seen.redacted);
}

#[test]
fn response_without_secret_is_unchanged() {
    let headers = [("content-length", "5"), ("etag", "\"x\""), ("digest", "sha-256=x"), ("x-a", "b")];
    let seen = get(&headers, full(&b"hello"[..])).unwrap();
    assert_eq!(seen.body, b"hello");
    for (name, value) in headers {
        assert_eq!(seen.headers[name], value);
    }
    assert!(seen.headers.len() == headers.len() && !seen.redacted && seen.trailers.is_empty());
}

#[test]
fn empty_patterns_change_nothing() {
    let redactor = Redactor::new(Patterns::build([]), Method::GET, "api.example.com");
    let answer =
        response(&[("content-encoding", "whatever"), ("content-length", "2")], full(&b"\x01\x02"[..]));
    let (answer, report) = runtime().block_on(redactor.redact(answer)).unwrap();
    assert_eq!(answer.headers()["content-encoding"], "whatever");
    assert!(!report.redacted());
}

#[test]
fn every_coding_is_decoded_and_redacted() {
    let text = br#"{"echo":"hunter2\/hunter2"}"#;
    let twice = encode("br", &encode("gzip", text));
    let cases = [
        ("gzip", encode("gzip", text)),
        ("x-gzip", encode("gzip", text)),
        ("deflate", encode("deflate", text)),
        ("deflate", encode("raw", text)),
        ("br", encode("br", text)),
        ("zstd", encode("zstd", text)),
        ("gzip, br", twice),
        ("gzip", [encode("gzip", &text[..12]), encode("gzip", &text[12..])].concat()),
    ];
    for (coding, bytes) in cases {
        let bytewise = bytes.chunks(1).map(Bytes::copy_from_slice).collect();
        for body in [full(bytes.clone()), chunks(bytewise, None)] {
            let seen = get(&[("content-encoding", coding), ("etag", "\"x\"")], body).unwrap();
            assert_eq!(seen.body, br#"{"echo":"[REDACTED_BY_AGENTSECRETS]"}"#, "{coding}");
            assert!(!seen.headers.contains_key("content-encoding"));
            assert_eq!(seen.headers["etag"], "W/\"x\"");
        }
    }
}

#[test]
fn unsearchable_response_is_refused() {
    let gzip = encode("gzip", &[b'a'; 2000]);
    let mut damaged = gzip.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    for (headers, body) in [
        (("content-encoding", "compress"), gzip.clone()),
        (("content-encoding", "gzip, gzip, gzip"), gzip.clone()),
        (("content-encoding", "gzip"), damaged),
        (("content-encoding", "gzip"), gzip[..gzip.len() - 9].to_vec()),
        (("content-encoding", "gzip"), [&gzip[..], b"hunter2/hunter2"].concat()),
        (("content-encoding", "br"), b"hunter2/hunter2".to_vec()),
        (("transfer-encoding", "gzip, chunked"), gzip.clone()),
        (("grpc-encoding", "gzip"), gzip.clone()),
    ] {
        let refusal = get(&[headers], full(body)).err().unwrap_or_else(|| panic!("{headers:?}"));
        assert_eq!(refusal.code, ErrorCode::UnreadableAnswer, "{headers:?}");
        assert!(!refusal.message.contains("hunter2"));
    }
}

#[test]
fn decompression_bomb_is_aborted() {
    let bomb = encode("zstd", &vec![0; 64 << 20]);
    let refusal = get(&[("content-encoding", "zstd")], full(bomb)).err().unwrap();
    assert!(refusal.message.contains("beyond reason"), "{refusal}");
}

#[test]
fn empty_compressed_response_passes() {
    let seen = get(&[("content-encoding", "gzip")], chunks(vec![], None)).unwrap();
    assert_eq!((seen.body.len(), &seen.headers["content-length"]), (0, &HeaderValue::from(0)));
}

#[test]
fn head_matches_get() {
    let head = |headers| runtime().block_on(seen(Method::HEAD, response(headers, empty()))).unwrap().headers;
    let plain = head(&[("content-length", "1234")]);
    assert_eq!(plain["content-length"], "1234");
    let gzip = head(&[("content-length", "1234"), ("content-encoding", "gzip")]);
    assert!(gzip.is_empty(), "{gzip:?}");
}

#[test]
fn large_response_announces_redaction_in_trailer() {
    let mut parts = vec![Bytes::from(vec![b'a'; 100 << 10])];
    parts.extend(SECRET.chunks(4).map(Bytes::copy_from_slice));
    let seen = get(&[], chunks(parts, None)).unwrap();
    assert_eq!(seen.body.len(), (100 << 10) + MARKER.len());
    assert!(!seen.headers.contains_key("content-length") && !seen.headers.contains_key("x-as-redacted"));
    assert_eq!(seen.headers["trailer"], "x-as-redacted");
    assert_eq!(seen.trailers["x-as-redacted"], "true");
}

#[test]
fn trailers_are_redacted() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-echo", HeaderValue::from_static("hunter2/hunter2"));
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = encode("gzip", b"hello");
    let seen = get(&[("content-encoding", "gzip")], chunks(vec![body.into()], Some(trailers))).unwrap();
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.trailers["x-echo"], "[REDACTED_BY_AGENTSECRETS]");
    assert_eq!(seen.trailers["grpc-status"], "0");
    assert!(seen.redacted);
}

#[test]
fn reason_phrase_is_redacted() {
    let mut answer = response(&[], empty());
    answer.extensions_mut().insert(ReasonPhrase::try_from(SECRET.to_vec()).unwrap());
    let (answer, report) = runtime().block_on(redactor(Method::GET).redact(answer)).unwrap();
    assert!(answer.extensions().get::<ReasonPhrase>().is_none() && report.redacted());
}

#[test]
fn event_is_delivered_before_the_next() {
    for coding in [None, Some("gzip")] {
        runtime().block_on(async {
            let (send, body) = pipe();
            let mut headers = vec![("content-type", "text/event-stream; charset=utf-8")];
            headers.extend(coding.map(|coding| ("content-encoding", coding)));
            // The headers come although there is no byte of the body yet.
            let answer = response(&headers, body);
            let (answer, report) = redactor(Method::GET).redact(answer).await.unwrap();
            let mut body = answer.into_body();
            let events = [&b"data: hello\n\n"[..], b"data: hunter2/hunter2\n\n"];
            let flushed: Vec<Vec<u8>> = match coding {
                None => events.map(<[u8]>::to_vec).to_vec(),
                Some(_) => {
                    use tokio::io::AsyncWriteExt;
                    let mut encoder = async_compression::tokio::write::GzipEncoder::new(Vec::new());
                    let mut pieces = Vec::new();
                    for event in events {
                        encoder.write_all(event).await.unwrap();
                        encoder.flush().await.unwrap();
                        pieces.push(std::mem::take(encoder.get_mut()));
                    }
                    pieces
                }
            };
            for (piece, wanted) in
                flushed.into_iter().zip(["data: hello\n\n", "data: [REDACTED_BY_AGENTSECRETS]\n\n"])
            {
                send.send(piece.into()).unwrap();
                let mut got = Vec::new();
                while got.len() < wanted.len() {
                    got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
                }
                assert_eq!(got, wanted.as_bytes());
            }
            assert!(report.redacted());
        });
    }
}

#[test]
fn line_is_delivered_after_idle_timeout() {
    runtime().block_on(async {
        let (send, body) = pipe();
        let (answer, _) = redactor(Method::GET).redact(response(&[], body)).await.unwrap();
        let mut body = answer.into_body();
        for line in ["one\n", "two\n"] {
            send.send(Bytes::from_static(line.as_bytes())).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), line);
        }
    });
}

#[test]
fn partial_content_is_refused() {
    let mut part = response(&[("content-range", "bytes 0-0/9")], full(&b"h"[..]));
    *part.status_mut() = StatusCode::PARTIAL_CONTENT;
    let refusal = runtime().block_on(redactor(Method::GET).redact(part)).err().unwrap();
    assert_eq!(refusal.code, ErrorCode::UnreadableAnswer);
    assert!(
        get(&[("accept-ranges", "bytes")], full(&b"hello"[..]))
            .unwrap()
            .headers
            .get("accept-ranges")
            .is_none()
    );
}

#[test]
fn grpc_message_is_delivered_when_complete() {
    runtime().block_on(async {
        let (send, body) = pipe();
        let answer = response(&[("content-type", "application/grpc+proto")], body);
        let (answer, _) = redactor(Method::POST).redact(answer).await.unwrap();
        let mut body = answer.into_body();
        for message in [&b"\0\0\0\0\x05hello"[..], b"\0\0\0\0\x02ok"] {
            send.send(Bytes::from_static(message)).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), message);
        }
    });
}

/// A server that repeats what it is sent, as the kind that it is asked for, can be made to frame its answer so
/// that the middle of a secret looks like the end of one message and the header of the next.
#[test]
fn false_grpc_frames_do_not_split_secret() {
    for cut in 0..SECRET.len() {
        let header = [0, 0, 0, 0, cut as u8];
        let text = [&header[..], SECRET, b" and more\n"].concat();
        for size in [text.len(), 7, 1] {
            let parts = text.chunks(size).map(Bytes::copy_from_slice).collect();
            let answer = response(&[("content-type", "application/grpc")], chunks(parts, None));
            let (left, ended) = runtime().block_on(async {
                let mut body = redactor(Method::POST).redact(answer).await.unwrap().0.into_body();
                let mut left = Vec::new();
                loop {
                    match body.frame().await {
                        Some(Ok(frame)) => left.extend_from_slice(&frame.into_data().unwrap()),
                        end => return (left, end),
                    }
                }
            });
            assert!(matches!(ended, Some(Err(_))), "cut at {cut} in chunks of {size}");
            // What ends a chunk too has left before the lie is seen; all of it never does.
            assert!(!left.windows(SECRET.len()).any(|window| window == SECRET));
            assert!(left.is_empty() || size < text.len());
        }
    }
}

#[test]
fn idle_body_does_not_delay_headers() {
    runtime().block_on(async {
        let (send, body) = pipe();
        let (answer, _) = redactor(Method::GET).redact(response(&[], body)).await.unwrap();
        send.send(Bytes::from_static(b"late\n")).unwrap();
        drop(send);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "late\n");
    });
}

#[test]
fn aborted_small_response_is_refused() {
    let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err(BodyError::TooLarge)];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    assert!(get(&[], body).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn secret_is_redacted_in_any_coding_and_chunking(
        before in proptest::collection::vec(any::<u8>(), 0..300),
        after in proptest::collection::vec(any::<u8>(), 0..300),
        coding in proptest::sample::select(vec!["", "gzip", "deflate", "raw", "br", "zstd"]),
        size in 1usize..200,
    ) {
        let text = [&before[..], SECRET, &after[..]].concat();
        let bytes = if coding.is_empty() { text } else { encode(coding, &text) };
        let name = match coding { "" => "identity", "raw" => "deflate", name => name };
        let parts = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let seen = get(&[("content-encoding", name)], chunks(parts, None)).unwrap();
        prop_assert_eq!(seen.body, [&before[..], MARKER, &after[..]].concat());
    }

    #[test]
    fn hostile_coding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), coding in proptest::sample::select(vec!["gzip", "deflate", "br", "zstd"])) {
        let _ = get(&[("content-encoding", coding)], full(bytes));
    }
}
