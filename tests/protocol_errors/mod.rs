//! Faulty servers and faulty clients: each gets a clear error, a truncated response never looks complete, no
//! request is sent twice, and the interceptor continues to serve.

mod client_input;
mod http1_server;
mod http2_server;

use serde_json::Value;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::faulty_server::{FaultyServer, Peer};
use crate::support::process::{command, run};

/// An agent that prints each response and how it ended.
const CLIENT: &str = include_str!("client.py");

/// A fixture with one more server, `faulty.test`, which behaves as `act`.
fn fixture_with_faulty_server(
    alpn: &str,
    act: impl Fn(Peer) + Send + Sync + 'static,
) -> (Fixture, FaultyServer) {
    let mut fixture = Fixture::new();
    let faulty = FaultyServer::https(&fixture.authority, "faulty.test", alpn, act);
    fixture.home.add_host("faulty.test", [127, 0, 0, 1]);
    let rule = "secrets: [API_KEY]";
    fixture.rules(&[("api.test", fixture.api.port(), rule), ("faulty.test", faulty.port(), rule)]);
    (fixture, faulty)
}

/// An agent's view of `url`'s responses to `requests`.
#[track_caller]
fn request_all(fixture: &Fixture, url: &str, requests: &[&str]) -> Vec<Value> {
    let mut agent = fixture.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "agent", url]);
    run(agent.args(requests)).json_lines()
}

/// The same program's view without interception.
#[track_caller]
fn request_all_directly(fixture: &Fixture, url: &str, requests: &[&str]) -> Vec<Value> {
    let mut agent = command("/usr/bin/python3");
    agent.args(["-c", CLIENT, "direct", url]).env("SSL_CERT_FILE", fixture.home.bundle());
    run(agent.args(requests)).json_lines()
}
