//! What came of a request, and how it is printed. It has been redacted already.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use serde::Serialize;

use crate::base::refusal::{Refusal, Slug};
use crate::cli::{Exit, Failure};
use crate::exchange::body::Body;

/// The answer, or why there is none.
#[derive(Default)]
pub(super) struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    failure: Option<Failure>,
}

/// As other programs read it.
#[derive(Serialize)]
struct Envelope<'a> {
    status: u16,
    headers: BTreeMap<&'a str, Vec<String>>,
    body: String,
    redacted: bool,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Answer {
    /// No answer at all.
    pub(super) fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// What `response` says, to its end; `refusal` is the reason where we answered in the server's stead.
    pub(super) async fn read(response: Response<Body>, refusal: Option<Failure>) -> Self {
        let (parts, mut body) = response.into_parts();
        let mut answer = Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Vec::new(),
            failure: refusal,
        };
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => answer.body.extend_from_slice(&data),
                Ok(Err(frame)) => answer.headers.extend(frame.into_trailers().unwrap_or_default()),
                Err(error) => {
                    let failure = Failure::new(Exit::Failure, format!("the upstream's answer: {error}"));
                    answer.failure.get_or_insert(failure);
                    break;
                }
            }
        }
        answer
    }

    /// Prints it, and gives the exit code.
    pub(super) fn print(self, as_json: bool, took: Duration) -> Result<ExitCode, Failure> {
        let mut text = if as_json {
            let mut text = serde_json::to_vec(&self.envelope(took)).unwrap_or_default();
            text.push(b'\n');
            text
        } else if self.status == 0 {
            Vec::new()
        } else {
            [format!("HTTP {}\n\n", self.status).as_bytes(), &self.body].concat()
        };
        // Scripts get the very bytes; a person's next prompt gets a line of its own.
        if io::stdout().is_terminal() && !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        match io::stdout().lock().write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::new(Exit::Failure, error));
            }
            _ => {}
        }
        self.failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    fn envelope(&self, took: Duration) -> Envelope<'_> {
        let mut headers = BTreeMap::<&str, Vec<String>>::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(name.as_str()).or_default().push(value);
        }
        Envelope {
            status: self.status,
            redacted: self.headers.get("x-as-redacted").is_some_and(|value| value == "true"),
            headers,
            body: String::from_utf8_lossy(&self.body).into_owned(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            error: self.failure.as_ref().map(Failure::what),
        }
    }
}

/// How a refusal ends the command. Other tools match its words.
pub(super) fn refused(refusal: &Refusal) -> Failure {
    let exit = exit(refusal.slug);
    match refusal.slug {
        Slug::SecretMissing => Failure::new(exit, &refusal.message)
            .hint("agentsecrets secrets list; agentsecrets secrets set NAME"),
        Slug::BadRequest => Failure::new(exit, &refusal.message),
        slug => Failure::new(exit, format!("{}: {}", slug.as_str(), refusal.message)),
    }
}

fn exit(slug: Slug) -> Exit {
    match slug {
        Slug::SecretMissing => Exit::NotFound,
        Slug::BadRequest => Exit::Usage,
        Slug::StoreUnavailable => Exit::Locked,
        slug if slug.status() == 403 => Exit::Denied,
        _ => Exit::Failure,
    }
}
