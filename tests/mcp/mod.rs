//! MCP: models' clients, frameworks' plugins and their configuration, with the libraries that they are really made
//! with. What they see is searched for the secret.

mod bridge;
mod exec;
mod install;
mod raw;
mod serve;
mod template;
mod transcript;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::packages;
use crate::spine::World;
use crate::support::home::AGENTSECRETS;
use crate::support::process::finish;
use crate::support::python::{PYTHON, program};

/// Where programs see the packages that the tests bring.
const PACKAGES: &str = "/mnt/mcp:/mnt/python";

/// A world that shows programs the packages.
fn world() -> World {
    let mut world = World::new();
    world.home.show(packages(), "/mnt");
    world
}

/// The variables that lead our program to the world's home.
fn variables(world: &World) -> Value {
    let command = world.home.agentsecrets(["status"]);
    let pairs = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    pairs.map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<serde_json::Map<_, _>>().into()
}

/// A Python program with the world's names and packages.
fn python(world: &World, name: &str, arguments: &[&str]) -> Command {
    let text = program(name);
    let mut python = world.home.beside([PYTHON, "-c", &text].iter().chain(arguments));
    python.env("PYTHONPATH", PACKAGES).env("HOME", "/tmp");
    python
}

/// What a client's session with `agentsecrets mcp serve arguments` brings.
#[track_caller]
fn session(world: &World, arguments: &[&str], calls: Value) -> Value {
    let arguments: Vec<&str> = ["mcp", "serve"].into_iter().chain(arguments.iter().copied()).collect();
    session_with(world, AGENTSECRETS, &arguments, "auto", calls)
}

/// The same with any program and manner of beginning.
#[track_caller]
fn session_with(world: &World, command: &str, arguments: &[&str], mode: &str, calls: Value) -> Value {
    let plan = json!({
        "command": command, "args": arguments, "env": variables(world), "errors": errors(world),
        "mode": mode, "calls": calls,
    });
    finish(&mut python(world, "mcp/session.py", &[&plan.to_string()])).json()
}

/// Where a session's server says what there is to say.
fn errors(world: &World) -> PathBuf {
    world.home.path().join("errors")
}

/// The arguments of `api_call`: a GET of `path` with the secret as its bearer token.
fn get(world: &World, path: &str) -> Value {
    json!(["api_call", {"url": world.url(path), "injections": {"bearer": "API_KEY"}}])
}
