//! The search in headers and trailers: every value, whatever its name says, since a server may echo a
//! secret in a cookie, a redirect or an error header alike.

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::patterns::{MARKER, Patterns};
use crate::guess_detector::RedactionReport;
use agentsecrets_types::body::{Body, BodyHooks, HookedBody, PolledFrame};
use agentsecrets_types::hop_by_hop::remove_internal;

/// Takes the secrets out of `headers`, and notes in `report` what there was.
pub(super) fn redact_bytes(headers: &mut HeaderMap, patterns: &Patterns, report: &RedactionReport) {
    let mut removed = Vec::new();
    for (name, value) in headers.iter_mut() {
        if let Some(clean) = patterns.redact_bytes(value.as_bytes()) {
            report.found(clean.has_piece);
            *value =
                HeaderValue::from_bytes(&clean.bytes).unwrap_or_else(|_| HeaderValue::from_static(marker()));
            if FRAMING.contains(name) {
                removed.push(name.clone());
            }
        }
        if let Some(clean) = patterns.redact_bytes(name.as_str().as_bytes()) {
            report.found(clean.has_piece);
            removed.push(name.clone());
        }
    }
    for name in removed {
        headers.remove(name);
    }
}

/// `body`, which is not searched, without what its trailers say in our name.
pub(super) fn without_internal_trailers(body: Body) -> Body {
    if body.is_end_stream() { body } else { HookedBody::new(body, InternalTrailerFilter).boxed_unsync() }
}

struct InternalTrailerFilter;

impl BodyHooks for InternalTrailerFilter {
    fn on_frame(&mut self, mut frame: PolledFrame, _is_end: bool) -> PolledFrame {
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            remove_internal(trailers);
        }
        frame
    }
}

/// Headers in which a marker would be an error: they go.
const FRAMING: [HeaderName; 2] = [CONTENT_LENGTH, TRAILER];

fn marker() -> &'static str {
    std::str::from_utf8(MARKER).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::{Method, Response};
    use http_body_util::StreamBody;

    use bytes::Bytes;
    use hyper::body::Frame;

    use super::*;
    use crate::response::Redactor;
    use agentsecrets_types::secret::Secret;

    fn scrubbed(headers: &mut HeaderMap, patterns: &Patterns) -> bool {
        let report = RedactionReport::default();
        redact_bytes(headers, patterns, &report);
        report.redacted()
    }

    #[test]
    fn secret_in_any_header_is_redacted() {
        let patterns = Patterns::build(&[Secret::new(b"hunter2/hunter2".to_vec())]);
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/login?next=1&p=hunter2%2Fhunter2&x=y"));
        headers.append("set-cookie", HeaderValue::from_static("a=b"));
        headers.append("set-cookie", HeaderValue::from_static("auth=aHVudGVyMi9odW50ZXIy; Secure"));
        headers.insert("x-raw", HeaderValue::from_bytes(b"\xffhunter2/hunter2\xff").unwrap());
        assert!(scrubbed(&mut headers, &patterns));
        assert_eq!(headers["location"], "/login?next=1&p=[REDACTED_BY_AGENTSECRETS]&x=y");
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=b", "auth=[REDACTED_BY_AGENTSECRETS]; Secure"]);
        assert_eq!(headers["x-raw"].as_bytes(), b"\xff[REDACTED_BY_AGENTSECRETS]\xff");
        assert!(!scrubbed(&mut headers, &patterns));
    }

    #[test]
    fn header_named_after_secret_is_dropped() {
        let patterns = Patterns::build(&[Secret::new(b"deadbeef01".to_vec())]);
        let mut headers = HeaderMap::new();
        headers.insert("x-deadbeef01", HeaderValue::from_static("1"));
        assert!(scrubbed(&mut headers, &patterns) && headers.is_empty());
    }

    #[tokio::test]
    async fn internal_trailers_are_dropped() {
        let searched = Patterns::build(&[Secret::new(b"hunter2/hunter2".to_vec())]);
        for patterns in [searched, Patterns::build([])] {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-as-redacted", HeaderValue::from_static("true"));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let redactor = Redactor::new(patterns, Method::GET, "api.example.com");
            let (answer, _) = redactor.redact(Response::new(body)).await.unwrap();
            let collected = answer.into_body().collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap();
            assert!(trailers.len() == 1 && trailers["grpc-status"] == "0", "{trailers:?}");
            assert_eq!(collected.to_bytes(), "hello");
        }
    }

    #[test]
    fn content_length_that_is_a_secret_is_dropped() {
        let patterns = Patterns::build(&[Secret::new(b"47114711".to_vec())]);
        let mut headers = HeaderMap::new();
        headers.insert("content-length", HeaderValue::from_static("47114711"));
        assert!(scrubbed(&mut headers, &patterns) && headers.is_empty());
    }
}
