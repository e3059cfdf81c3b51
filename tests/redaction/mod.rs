//! What comes back to an agent holds no secret, in whatever form a server repeats it and wherever it puts it, and
//! tells nothing of one to somebody who guesses.

mod codings;
#[path = "../../agentsecrets/src/redact/test_encoders.rs"]
mod echoes;
mod forms;
mod guesses;
mod parts;

use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::spine::{Agent, SECRET, World};
use crate::support::endpoints::{Body, Received, stream, whole};
use crate::support::faulty::{Faulty, Peer};
use crate::support::process::finish;
use crate::support::python::{PYTHON, Server, with_program};
use crate::support::upstream::{Options, Upstream};
use echoes::ECHOES;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

/// A world whose server answers with `answers`.
fn world(answers: impl Fn(&Received) -> Option<Response<Body>> + Send + Sync + 'static) -> World {
    let world =
        World::with(|authority| Upstream::start(Options::https(authority, &["api.test"]).answering(answers)));
    world.rule("secrets: [API_KEY]\nmethods: [GET, POST, HEAD]");
    world
}

/// The secret, as it came in.
fn secret_of(received: &Received) -> &str {
    received.header("authorization").trim_start_matches("Bearer ")
}

/// No form of the secret is in `text`.
#[track_caller]
fn is_clean(text: &[u8], what: &str) {
    for (name, echo) in ECHOES {
        let echo = echo(SECRET.as_bytes());
        let found = text.windows(echo.len()).any(|window| window == echo);
        assert!(!found, "{what}: {name} in {}", String::from_utf8_lossy(text));
    }
}
