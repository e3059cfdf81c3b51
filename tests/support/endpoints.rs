//! The test server's responses. It echoes what it receives: the worst upstream is one that repeats the secret.
//!
//! | Path | Answer |
//! |---|---|
//! | `/echo` | the request as JSON; also any path that is not listed |
//! | `/echo-gzip` | the same, gzipped, whatever `Accept-Encoding` says |
//! | `/echo-raw` | the value of `Authorization` (or of the query's `value`) as the whole body, and as a header |
//! | `/stream?n=N` | N bytes of `x` |
//! | `/drip?size=N` | the body of `/echo-raw` in frames of N bytes (1 if not given) |
//! | `/sse` | three events in separate frames; the second repeats `Authorization` |
//! | `/trailers` | an empty object, and `Authorization` again in a trailer |
//! | `/upload` | the number of bytes received, counted without storing them |
//! | `/slow` | the head at once, the body never |
//! | `/never` | nothing at all |
//! | `/held` | one event of a stream, and then nothing |
//! | `/redirect?to=URL` | 302 |
//! | any path that ends in `/status?code=N` | that status, without a body |

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, header};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub(crate) version: String,
    /// Path and query as on the wire.
    pub(crate) path: String,
    /// `:authority`, or the authority of the request line.
    pub(crate) authority: Option<String>,
    /// Lower-case names; values of repeated headers in order.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// Trailers, in the same form.
    pub(crate) trailers: BTreeMap<String, Vec<String>>,
    /// The body as text; for `/upload` only its length.
    pub(crate) body: String,
    /// The body's bytes; empty for `/upload`.
    #[serde(skip)]
    pub(crate) bytes: Bytes,
    #[serde(flatten)]
    pub(crate) peer: Peer,
}

/// TLS properties of the client; empty without TLS.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Peer {
    /// The requested server name.
    pub(crate) sni: Option<String>,
    /// `TLSv1_2` or `TLSv1_3`.
    #[serde(skip)]
    pub(crate) version: Option<String>,
    /// The number of certificates that the client presented.
    #[serde(skip)]
    pub(crate) certificates: usize,
}

impl ReceivedRequest {
    /// The first value of a header, or an empty string.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn credential(&self) -> String {
        self.query("value").unwrap_or_else(|| self.header("authorization").to_owned())
    }
}

/// Reads a whole request.
pub(crate) async fn receive(request: Request<Incoming>, peer: Peer) -> Result<ReceivedRequest, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let headers = header_texts(&head.headers);
    let mut trailers = BTreeMap::new();
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let (mut content, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                length += data.len();
                if !path.starts_with("/upload") {
                    content.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.trailers_ref().map(header_texts).unwrap_or_default(),
        }
    }
    let body = match path.starts_with("/upload") {
        true => length.to_string(),
        false => String::from_utf8_lossy(&content).into_owned(),
    };
    Ok(ReceivedRequest {
        method: head.method.to_string(),
        version: format!("{:?}", head.version),
        path,
        authority: head.uri.authority().map(ToString::to_string),
        headers,
        trailers,
        body,
        bytes: content.into(),
        peer,
    })
}

fn header_texts(headers: &hyper::HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        texts.entry(name.to_string()).or_default().push(value);
    }
    texts
}

/// The server's default response.
pub(crate) async fn respond(received: &ReceivedRequest) -> Response<Body> {
    let path = received.path.split('?').next().unwrap_or_default();
    let number = |name, otherwise| received.query(name).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    match path {
        "/echo-gzip" => {
            let mut answer = full_response("application/json", gzip(&echo(received)).await);
            answer.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            answer
        }
        "/echo-raw" => {
            let mut answer = full_response("text/plain", received.credential());
            if let Ok(value) = received.credential().parse() {
                answer.headers_mut().insert("x-echo", value);
            }
            answer
        }
        "/stream" => {
            let (block, n) = (Bytes::from(vec![b'x'; 64 * 1024]), number("n", 0));
            let full = std::iter::repeat_n(block.clone(), n / block.len());
            framed_response("application/octet-stream", full.chain([block.slice(..n % block.len())]))
        }
        "/drip" => {
            let bytes = Bytes::from(received.credential());
            let size = number("size", 1).max(1);
            let parts: Vec<Bytes> = bytes.chunks(size).map(|chunk| bytes.slice_ref(chunk)).collect();
            framed_response("text/plain", parts)
        }
        "/sse" => {
            let events = ["one".to_owned(), received.credential(), "three".to_owned()];
            framed_response(
                "text/event-stream",
                events.map(|event| Bytes::from(format!("data: {event}\n\n"))),
            )
        }
        "/trailers" => {
            let mut trailers = hyper::HeaderMap::new();
            if let Ok(value) = received.credential().parse() {
                trailers.insert("x-echo", value);
            }
            let parts = [Frame::data(Bytes::from_static(b"{}")), Frame::trailers(trailers)];
            stream_response("application/json", futures_util::stream::iter(parts.map(Ok)))
        }
        "/upload" => full_response("application/json", json!({ "bytes": received.body }).to_string()),
        "/slow" => stream_response("text/plain", futures_util::stream::pending()),
        "/never" => std::future::pending().await,
        "/held" => {
            use futures_util::StreamExt;
            let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"data: one\n\n")))]);
            stream_response("text/event-stream", first.chain(futures_util::stream::pending()))
        }
        _ if path.ends_with("/status") => {
            let mut answer = Response::new(Full::new(Bytes::new()).boxed_unsync());
            *answer.status_mut() = hyper::StatusCode::from_u16(number("code", 200) as u16).unwrap();
            answer
        }
        "/redirect" => {
            let mut answer = full_response("text/plain", "elsewhere");
            *answer.status_mut() = hyper::StatusCode::FOUND;
            if let Some(to) = received.query("to").and_then(|to| to.parse().ok()) {
                answer.headers_mut().insert(header::LOCATION, to);
            }
            answer
        }
        _ => full_response("application/json", echo(received)),
    }
}

fn echo(received: &ReceivedRequest) -> String {
    serde_json::to_string(received).unwrap()
}

async fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = async_compression::tokio::bufread::GzipEncoder::new(text.as_bytes());
    let mut compressed = Vec::new();
    encoder.read_to_end(&mut compressed).await.unwrap();
    compressed
}

/// A response with a complete body.
pub(crate) fn full_response(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

/// A response sent frame by frame: the server yields between frames, so that each is written separately.
fn framed_response<I>(kind: &'static str, parts: I) -> Response<Body>
where
    I: IntoIterator<Item = Bytes>,
    I::IntoIter: Send + 'static,
{
    let parts = futures_util::stream::unfold(parts.into_iter(), |mut parts| async move {
        tokio::task::yield_now().await;
        parts.next().map(|part| (Ok(Frame::data(part)), parts))
    });
    stream_response(kind, parts)
}

pub(crate) fn stream_response<S>(kind: &'static str, frames: S) -> Response<Body>
where
    S: futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
{
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}
