//! Prints the response of `agentsecrets call`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::call::CallResponse;
use crate::types::failure::Failure;

/// The JSON output, which other programs parse.
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

/// Prints the response and returns the exit code.
pub(super) fn print(answer: CallResponse, as_json: bool, took: Duration) -> Result<ExitCode, Failure> {
    let mut text = if as_json {
        let mut text = serde_json::to_vec(&envelope(&answer, took)).unwrap_or_default();
        text.push(b'\n');
        text
    } else if answer.status == 0 {
        Vec::new()
    } else {
        [format!("HTTP {}\n\n", answer.status).as_bytes(), &answer.body].concat()
    };
    // Scripts get the exact bytes; at a terminal the prompt starts on a new line.
    if io::stdout().is_terminal() && !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    match io::stdout().lock().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::from_error(error));
        }
        _ => {}
    }
    answer.failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn envelope(answer: &CallResponse, took: Duration) -> Envelope<'_> {
    let mut headers = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    Envelope {
        status: answer.status,
        redacted: answer.is_redacted(),
        headers,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        error: answer.failure.as_ref().map(Failure::message),
    }
}
