//! Responses hold no secret, in any encoding and at any location, and reveal nothing about one to an agent
//! that guesses.

mod content_encoding;
mod encodings;
mod guess_detection;
mod ranges;

use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::support::endpoints::{Body, ReceivedRequest, full_response, stream_response};
use crate::support::faulty_server::{FaultyServer, Peer};
use crate::support::process::run;
use crate::support::python::{PYTHON, Server, with_program};
use crate::support::upstream::{Options, Upstream};
use agentsecrets::redact::test_encoders::ENCODERS;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

/// A fixture whose server responds with `answers`.
fn fixture(answers: impl Fn(&ReceivedRequest) -> Option<Response<Body>> + Send + Sync + 'static) -> Fixture {
    let fixture = Fixture::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).with_handler(answers))
    });
    fixture.rule("secrets: [API_KEY]\nmethods: [GET, POST, HEAD]");
    fixture
}

/// The secret that the request carried.
fn secret_of(received: &ReceivedRequest) -> &str {
    received.header("authorization").trim_start_matches("Bearer ")
}

/// Asserts that `text` holds no encoding of the secret.
#[track_caller]
fn assert_clean(text: &[u8], what: &str) {
    for (name, echo) in ENCODERS {
        let echo = echo(SECRET.as_bytes());
        let found = text.windows(echo.len()).any(|window| window == echo);
        assert!(!found, "{what}: {name} in {}", String::from_utf8_lossy(text));
    }
}
