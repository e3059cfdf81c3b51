//! Keychain-Auth: what a program was given beside its rules, how that ends, and who tries to have more.

mod refused;
mod sessions;
mod tokens;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::proxy::Proxy;
use crate::spine::World;
use crate::support::process::{Outcome, finish, until};

/// Runs the program as the person.
#[track_caller]
fn person(world: &World, words: &[&str]) -> Outcome {
    finish(&mut world.home.agentsecrets(words))
}

/// Registers `agent`, where it is new, and issues a token to it.
#[track_caller]
fn token(world: &World, agent: &str, more: &[&str]) -> String {
    let _ = person(world, &["agent", "register", agent]);
    let token = person(world, &[&["agent", "token", "issue", "--agent", agent], more].concat()).ok();
    token.trim().to_owned()
}

/// The id in a token.
fn id(token: &str) -> &str {
    token.split('_').nth(2).unwrap()
}

/// Starts a session; its id, or its token.
#[track_caller]
fn session(world: &World, words: &[&str]) -> String {
    person(world, &[&["session", "start"], words].concat()).ok().trim().to_owned()
}

/// Starts a session for this process, of which every program that a test starts is a child.
#[track_caller]
fn own_session(world: &World, words: &[&str]) -> String {
    let pid = std::process::id().to_string();
    session(world, &[&["--pid", &pid], words].concat())
}

/// A policy of these agents, each with what stands beside its name, that may spend the secret at the server.
fn policy(world: &World, agents: &[(&str, &str)]) {
    let mut text = String::from("version: 1\nagents:\n");
    for (name, more) in agents {
        text += &format!(
            "  - name: {name}\n{more}    allow:\n      - {{ host: api.test, ports: [{}], private: true, \
             secrets: [API_KEY] }}\n",
            world.api.port()
        );
    }
    world.home.policy(&text);
}

/// What the endpoint of the proxy answers to a request that spends the secret: code and body.
#[track_caller]
fn spend(world: &World, proxy: &Proxy, headers: &[&str]) -> (String, String) {
    let target = format!("X-AS-Target-URL: {}", world.url("/echo-raw"));
    let all = [&[target.as_str(), "X-AS-Inject-Bearer: API_KEY"], headers].concat();
    let arguments: Vec<&str> = all.iter().flat_map(|header| ["-H", header]).collect();
    proxy.ask(&arguments, "/proxy")
}

/// The refusal in an answer: slug and message.
#[track_caller]
fn refusal((code, body): (String, String)) -> (String, String) {
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {code} {body}"));
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (text("error"), text("message"))
}
