//! One answer on its way to the agent: decoded, searched, and framed anew.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use tokio::time::Sleep;

use super::content_coding::{DIGESTS, codings, decoded};
use super::grpc::Messages;
use super::headers;
use super::patterns::Patterns;
use super::stream::{StreamRedactor, Unit};
use crate::guess_detector::{GuessCounter, RedactionReport};
use crate::websocket::Conversation;
use agentsecrets_types::body::{Body, BodyError, empty, full};
use agentsecrets_types::hop_by_hop;
use agentsecrets_types::rejection::{ErrorCode, Rejection};
use agentsecrets_types::secret::Secret;

/// The header, or trailer, that says that something was taken out.
const REDACTED: HeaderName = HeaderName::from_static("x-as-redacted");
/// Answers up to this size, in bytes, are collected and get an exact length.
const MAX_BUFFERED: usize = 64 << 10;
/// The headers of a response of unknown size wait this long for its body to turn out small. The time does not
/// depend on the content.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(10);
/// A whole line waits this long for more. The time does not depend on the content.
const IDLE_TIMEOUT: Duration = Duration::from_millis(20);

/// Takes the agent's secrets out of one answer. Made only together with the request that carries them.
pub struct Redactor {
    patterns: Arc<Patterns>,
    method: Method,
    domain: String,
    counter: Option<GuessCounter>,
}

impl Redactor {
    /// For the answer of `domain` to a request with `method`.
    pub fn new(patterns: Arc<Patterns>, method: Method, domain: impl ToString) -> Self {
        Self { patterns, method, domain: domain.to_string(), counter: None }
    }

    /// The same, counting the pieces of secrets that come back.
    pub fn counted_by(mut self, counter: GuessCounter) -> Self {
        self.counter = Some(counter);
        self
    }

    /// The same, which searches for `value` too.
    pub fn and(self, value: &Secret) -> Self {
        Self { patterns: self.patterns.and([value]), ..self }
    }

    /// The search of the messages that follow a response which switches protocols. It adds to `report`.
    pub fn conversation(&self) -> impl FnOnce(RedactionReport) -> Conversation + use<> {
        let patterns = self.patterns.clone();
        move |report| Conversation::new(patterns, report)
    }

    /// The answer without secrets. Refused with `unreadable_answer` where it cannot be searched, and
    /// with `upstream_unavailable` where a small one breaks off.
    pub async fn redact(
        self,
        mut response: Response<Body>,
    ) -> Result<(Response<Body>, RedactionReport), Rejection> {
        let report = RedactionReport::counted_by(self.counter.clone());
        hop_by_hop::remove_internal(response.headers_mut());
        if self.patterns.is_empty() {
            return Ok((response.map(headers::without_internal_trailers), report));
        }
        if self.patterns.is_too_large() {
            return Err(self.unreadable("the secrets are too large to search answers for"));
        }
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::PARTIAL_CONTENT {
            return Err(self.unreadable(
                "a part of an answer came, which was not asked for and may cut a secret in two",
            ));
        }
        headers::redact_bytes(&mut parts.headers, &self.patterns, &report);
        // An answer is whole, whatever part of it is asked for.
        parts.headers.remove(ACCEPT_RANGES);
        if let Some(reason) = parts.extensions.get::<ReasonPhrase>()
            && let Some(clean) = self.patterns.redact_bytes(reason.as_bytes())
        {
            parts.extensions.remove::<ReasonPhrase>();
            report.found(clean.has_piece);
        }
        let body = if self.is_bodyless(parts.status) || body.is_end_stream() {
            self.no_body(&mut parts.headers);
            empty()
        } else {
            self.body(&mut parts.headers, body, &report).await?
        };
        if report.redacted() {
            parts.headers.insert(REDACTED, HeaderValue::from_static("true"));
        }
        Ok((Response::from_parts(parts, body), report))
    }

    fn is_bodyless(&self, status: StatusCode) -> bool {
        self.method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
    }

    /// A HEAD speaks of the answer that a GET would get from us.
    fn no_body(&self, headers: &mut HeaderMap) {
        if codings(headers).is_ok_and(|codings| !codings.is_empty()) {
            headers.remove(CONTENT_LENGTH);
            no_longer_encoded(headers);
        }
    }

    async fn body(
        &self,
        headers: &mut HeaderMap,
        body: Body,
        report: &RedactionReport,
    ) -> Result<Body, Rejection> {
        self.check_readable(headers)?;
        let codings = codings(headers).map_err(|error| self.unreadable(error.to_string()))?;
        let size = body.size_hint().exact();
        let body = if codings.is_empty() {
            body
        } else {
            no_longer_encoded(headers);
            BodyExt::boxed_unsync(decoded(body, &codings))
        };
        hop_by_hop::clear_framing(headers);
        let mut clean = RedactedBody {
            ready: VecDeque::new(),
            rest: Some(body),
            trailers: HeaderMap::new(),
            messages: is_kind(headers, b"application/grpc").then(Messages::default),
            stream: StreamRedactor::new(self.patterns.clone(), unit(headers)),
            patterns: self.patterns.clone(),
            report: report.clone(),
            is_announced: false,
            idle: None,
        };
        if !is_streaming(headers) {
            let small = size.is_some_and(|size| size <= MAX_BUFFERED as u64);
            let buffering = clean.buffer_small();
            let buffered = if small {
                buffering.await
            } else {
                tokio::time::timeout(FLUSH_TIMEOUT, buffering).await.unwrap_or(Ok(()))
            };
            buffered.map_err(|error| self.broken(&error))?;
        }
        clean.is_announced = report.redacted();
        if report.redacted() {
            remove_validators(headers);
        }
        if let Some(whole) = clean.whole() {
            hop_by_hop::set_length(headers, whole.len() as u64);
            return Ok(full(whole));
        }
        if !clean.is_announced {
            hop_by_hop::announce_trailer(headers, &REDACTED);
        }
        Ok(clean.boxed_unsync())
    }

    /// Codings other than the content's own.
    fn check_readable(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let only = |name: &HeaderName, allowed: &str| {
            headers
                .get_all(name)
                .iter()
                .all(|value| value.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
        };
        if !only(&TRANSFER_ENCODING, "chunked") {
            return Err(self.unreadable("the answer comes in a transfer coding that cannot be searched"));
        }
        if !only(&HeaderName::from_static("grpc-encoding"), "identity") {
            return Err(self.unreadable("the answer's messages are compressed and cannot be searched"));
        }
        if headers.contains_key("im") {
            return Err(self.unreadable("the answer is a difference and cannot be searched"));
        }
        Ok(())
    }

    fn broken(&self, error: &BodyError) -> Rejection {
        match error {
            BodyError::Peer(_) | BodyError::Reset => Rejection::new(
                ErrorCode::UpstreamUnavailable,
                format!("'{}' broke off its answer", self.domain),
            ),
            BodyError::Stalled => Rejection::new(
                ErrorCode::UpstreamTimeout,
                format!("'{}' did not go on with its answer", self.domain),
            ),
            error => self.unreadable(error.to_string()),
        }
    }

    fn unreadable(&self, message: impl Into<String>) -> Rejection {
        Rejection::new(ErrorCode::UnreadableAnswer, message)
    }
}

/// Whether the answer is a conversation, whose headers and messages must not wait for each other.
fn is_streaming(headers: &HeaderMap) -> bool {
    let others = [&b"application/grpc"[..], b"multipart/x-mixed-replace"];
    unit(headers) != Unit::Whole || others.iter().any(|kind| is_kind(headers, kind))
}

/// The unit of the response that leaves at once.
fn unit(headers: &HeaderMap) -> Unit {
    const LINES: [&[u8]; 5] = [
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/json-seq",
        b"application/stream+json",
    ];
    if is_kind(headers, b"text/event-stream") {
        Unit::Event
    } else if LINES.iter().any(|kind| is_kind(headers, kind)) {
        Unit::Line
    } else {
        Unit::Whole
    }
}

/// Whether the content's type begins with `kind`.
fn is_kind(headers: &HeaderMap, kind: &[u8]) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

fn no_longer_encoded(headers: &mut HeaderMap) {
    headers.remove(CONTENT_ENCODING);
    remove_validators(headers);
}

/// The bytes are no longer those that the server spoke of.
fn remove_validators(headers: &mut HeaderMap) {
    for name in DIGESTS {
        headers.remove(name);
    }
    if let Some(tag) = headers.get_mut(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
    {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => *tag = weak,
            Err(_) => drop(headers.remove(ETAG)),
        }
    }
}

/// A body without secrets.
struct RedactedBody {
    /// Chunks that were collected before the headers left.
    ready: VecDeque<Bytes>,
    /// The rest of the body; `None` after its end.
    rest: Option<Body>,
    trailers: HeaderMap,
    /// The frames of a gRPC stream.
    messages: Option<Messages>,
    stream: StreamRedactor,
    patterns: Arc<Patterns>,
    report: RedactionReport,
    /// Whether it was said already that something was taken out.
    is_announced: bool,
    /// Ends when nothing has come for so long that whole lines may leave.
    idle: Option<Pin<Box<Sleep>>>,
}

impl RedactedBody {
    /// Reads until the end, or until the answer is not small any more. May be dropped at any time.
    async fn buffer_small(&mut self) -> Result<(), BodyError> {
        let mut size = 0;
        while size <= MAX_BUFFERED {
            let Some(data) = std::future::poll_fn(|cx| self.poll_clean(cx)).await else { break };
            let data = data?;
            size += data.len();
            self.ready.push_back(data);
        }
        Ok(())
    }

    /// All of it in one piece, if it has ended and has no trailers.
    fn whole(&mut self) -> Option<Bytes> {
        if self.rest.is_some() || !self.trailers.is_empty() {
            return None;
        }
        let first = self.ready.pop_front().unwrap_or_default();
        if self.ready.is_empty() {
            return Some(first);
        }
        let mut whole = BytesMut::from(first);
        self.ready.drain(..).for_each(|data| whole.extend_from_slice(&data));
        Some(whole.freeze())
    }

    /// The next bytes that may leave; never none of them.
    fn poll_clean(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        while let Some(body) = &mut self.rest {
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                ready!(self.poll_idle(cx));
                let clean = self.stream.flush_lines();
                self.stream.report_to(&self.report);
                if !clean.is_empty() {
                    return Poll::Ready(Some(Ok(clean)));
                }
                continue;
            };
            self.idle = None;
            let clean = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data),
                    Err(frame) => Ok(self.end(frame.into_trailers().unwrap_or_default())),
                },
                None => Ok(self.end(HeaderMap::new())),
                Some(Err(error)) => Err(error),
            };
            let clean = match clean {
                Ok(clean) => clean,
                Err(error) => {
                    self.rest = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            self.stream.report_to(&self.report);
            if !clean.is_empty() {
                return Poll::Ready(Some(Ok(clean)));
            }
        }
        Poll::Ready(None)
    }

    /// Waits until nothing has come for a while although whole lines are held; else for ever.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.stream.has_line() {
            return Poll::Pending;
        }
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIMEOUT)));
        ready!(idle.as_mut().poll(cx));
        self.idle = None;
        Poll::Ready(())
    }

    fn take(&mut self, mut data: Bytes) -> Result<Bytes, BodyError> {
        let Some(messages) = &mut self.messages else { return Ok(self.stream.push(data)) };
        let mut clean = BytesMut::new();
        // Each message leaves when it is whole, whichever of them come in one piece. What has left is remembered:
        // a server that repeats what it is sent may call a part of a secret a header.
        while let Some(end) = messages.end(&data)? {
            clean.extend_from_slice(&self.stream.push(data.split_to(end)));
            clean.extend_from_slice(&self.stream.flush(|_| 0));
            self.stream.report_to(&self.report);
            if !self.report.next_message() {
                return Err(BodyError::Coding("pieces of a secret came back too often"));
            }
        }
        clean.extend_from_slice(&self.stream.push(data));
        Ok(clean.freeze())
    }

    /// The body has ended: what was held leaves, and the trailers are known.
    fn end(&mut self, trailers: HeaderMap) -> Bytes {
        self.rest = None;
        self.trailers = trailers;
        hop_by_hop::remove_internal(&mut self.trailers);
        headers::redact_bytes(&mut self.trailers, &self.patterns, &self.report);
        self.stream.finish()
    }
}

impl http_body::Body for RedactedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(data) = ready!(self.poll_clean(cx)) {
            if data.is_err() {
                self.is_announced = true;
            }
            return Poll::Ready(Some(data.map(Frame::data)));
        }
        let mut trailers = std::mem::take(&mut self.trailers);
        if self.report.redacted() && !self.is_announced {
            self.is_announced = true;
            trailers.insert(REDACTED, HeaderValue::from_static("true"));
        }
        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
