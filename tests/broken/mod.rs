//! Broken servers and broken clients: each gets its clear error, no truncated answer looks whole, no
//! request is said twice, and the interceptor serves on.

mod disk;
mod http1;
mod http2;
mod input;

use serde_json::Value;

use crate::spine::{SECRET, World};
use crate::support::faulty::{Faulty, Peer};
use crate::support::process::{command, finish};

/// An agent that tells what it got and how that ended; see there.
const CLIENT: &str = include_str!("client.py");

/// A world with one more server, `faulty.test`, that does what `act` does.
fn world(alpn: &str, act: impl Fn(Peer) + Send + Sync + 'static) -> (World, Faulty) {
    let mut world = World::new();
    let faulty = Faulty::https(&world.authority, "faulty.test", alpn, act);
    world.home.host("faulty.test", [127, 0, 0, 1]);
    let rule = "secrets: [API_KEY]";
    world.rules(&[("api.test", world.api.port(), rule), ("faulty.test", faulty.port(), rule)]);
    (world, faulty)
}

/// What an agent sees of `url`'s answers to `requests`.
#[track_caller]
fn asked(world: &World, url: &str, requests: &[&str]) -> Vec<Value> {
    let mut agent = world.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "agent", url]);
    lines(&finish(agent.args(requests)).ok())
}

/// What the same program sees without us.
#[track_caller]
fn asked_directly(world: &World, url: &str, requests: &[&str]) -> Vec<Value> {
    let mut agent = command("/usr/bin/python3");
    agent.args(["-c", CLIENT, "direct", url]).env("SSL_CERT_FILE", world.home.bundle());
    lines(&finish(agent.args(requests)).ok())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
