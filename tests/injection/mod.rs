//! All ways to refer to a secret, and to inject one by rule. The values need escaping in every location.

mod bodies;
mod framing;
mod quoted_placeholders;
mod request_headers;
mod styles;

use crate::end_to_end::Fixture;
use crate::support::process::{Outcome, run};
use crate::support::upstream::{Options, Upstream};

/// Valid in a header; needs escaping in quotes, forms, queries and JSON.
const ODD_VALUE: &str = "p\"a\\s+w&r=d%41;x";

const JSON_HEADER: &str = "Content-Type: application/json";

/// A fixture with `API_KEY`, `ODD` and `PAIR`, and a rule with `more`.
fn fixture(more: &str) -> Fixture {
    fixture_with(Upstream::start, more)
}

fn fixture_with(start: impl FnOnce(Options<'_>) -> Upstream, more: &str) -> Fixture {
    let fixture = Fixture::with(|authority| start(Options::https(authority, &["api.test"])));
    fixture.home.set_secret("ODD", ODD_VALUE);
    fixture.home.set_secret("PAIR", "bob:hunter2hunter2");
    fixture.rule(more);
    fixture
}

/// Runs curl as an agent without a placeholder.
#[track_caller]
fn curl(fixture: &Fixture, arguments: &[&str], path: &str) -> Outcome {
    let mut curl = fixture.home.run_agent(["curl", "-sS", "--path-as-is", "-m", "20"]);
    run(curl.args(arguments).arg(fixture.url(path)))
}

/// Status and message of curl's rejection.
#[track_caller]
fn curl_rejected(fixture: &Fixture, arguments: &[&str], path: &str) -> (String, String) {
    let before = fixture.api.received().len();
    let more: Vec<&str> = arguments.iter().copied().chain(["-w", "\n%{http_code}"]).collect();
    let text = curl(fixture, &more, path).ok();
    let (body, code) = text.trim().rsplit_once('\n').unwrap();
    assert_eq!(fixture.api.received().len(), before, "it left all the same: {text}");
    let body: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"));
    let sentence = body["message"].as_str().or(body["error"].as_str()).unwrap();
    (code.to_owned(), sentence.to_owned())
}

/// Asserts that no value is in the audit log or in the agent's output.
#[track_caller]
fn assert_no_value(fixture: &Fixture, shown: &str) {
    let log = std::fs::read_to_string(fixture.home.path().join("audit/audit.jsonl")).unwrap();
    for value in [crate::end_to_end::SECRET, ODD_VALUE, "hunter2hunter2", "p%22a", "p\\\"a"] {
        assert!(!log.contains(value), "{value} in the log");
        assert!(!shown.contains(value), "{value} in {shown}");
    }
}
