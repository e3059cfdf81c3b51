//! Every way for an agent to name a secret that it does not hold, and for a rule to put one in: what it
//! sends, and what the server gets. The secrets hold whatever some place must escape.

mod asked;
mod bodies;
mod clients;
mod comment;
mod framing;
mod styles;

use crate::spine::World;
use crate::support::process::{Outcome, finish};
use crate::support::upstream::{Options, Upstream};

/// A value that a header can carry and that quotes, form, query and JSON must escape.
const ODD: &str = "p\"a\\s+w&r=d%41;x";

const JSON: &str = "Content-Type: application/json";

/// A world with `API_KEY`, `ODD`, and `PAIR`, and a rule with `more`.
fn world(more: &str) -> World {
    world_with(Upstream::start, more)
}

fn world_with(start: impl FnOnce(Options<'_>) -> Upstream, more: &str) -> World {
    let world = World::with(|authority| start(Options::https(authority, &["api.test"])));
    world.home.secret("ODD", ODD);
    world.home.secret("PAIR", "bob:hunter2hunter2");
    world.rule(more);
    world
}

/// Runs curl as an agent, without any placeholder of ours.
#[track_caller]
fn curl(world: &World, arguments: &[&str], path: &str) -> Outcome {
    let mut curl = world.home.run_agent(["curl", "-sS", "--path-as-is", "-m", "20"]);
    finish(curl.args(arguments).arg(world.url(path)))
}

/// What curl is refused with: the status and the sentence.
#[track_caller]
fn refused(world: &World, arguments: &[&str], path: &str) -> (String, String) {
    let before = world.api.received().len();
    let more: Vec<&str> = arguments.iter().copied().chain(["-w", "\n%{http_code}"]).collect();
    let text = curl(world, &more, path).ok();
    let (body, code) = text.trim().rsplit_once('\n').unwrap();
    assert_eq!(world.api.received().len(), before, "it left all the same: {text}");
    let body: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"));
    let sentence = body["message"].as_str().or(body["error"].as_str()).unwrap();
    (code.to_owned(), sentence.to_owned())
}

/// No value is in the audit log, nor in what an agent was shown.
#[track_caller]
fn no_value_in(world: &World, shown: &str) {
    let log = std::fs::read_to_string(world.home.path().join("audit/audit.jsonl")).unwrap();
    for value in [crate::spine::SECRET, ODD, "hunter2hunter2", "p%22a", "p\\\"a"] {
        assert!(!log.contains(value), "{value} in the log");
        assert!(!shown.contains(value), "{value} in {shown}");
    }
}
