//! MCP: model clients, framework plugins and their configuration, with the real libraries. Everything they
//! see is searched for the secret.

mod bridge;
mod exec;
mod install;
mod raw_client;
mod serve;
mod template;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::packages;
use crate::end_to_end::Fixture;
use crate::support::home::AGENTSECRETS;
use crate::support::process::run;
use crate::support::python::{PYTHON, program};
use crate::support::value_search;

/// The mount points of the test packages.
const PACKAGES: &str = "/mnt/mcp:/mnt/python";

/// A fixture with the packages mounted.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.home.bind_mount(packages(), "/mnt");
    fixture
}

/// The variables that point our program to the fixture's home.
fn variables(fixture: &Fixture) -> Value {
    let command = fixture.home.agentsecrets(["status"]);
    let pairs = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    pairs.map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<serde_json::Map<_, _>>().into()
}

/// A Python program with the fixture's host names and packages.
fn python(fixture: &Fixture, name: &str, arguments: &[&str]) -> Command {
    let text = program(name);
    let mut python = fixture.home.command_outside([PYTHON, "-c", &text].iter().chain(arguments));
    python.env("PYTHONPATH", PACKAGES).env("HOME", "/tmp");
    python
}

/// Runs a client session with `agentsecrets mcp serve arguments`.
#[track_caller]
fn run_session(fixture: &Fixture, arguments: &[&str], calls: Value) -> Value {
    let arguments: Vec<&str> = ["mcp", "serve"].into_iter().chain(arguments.iter().copied()).collect();
    run_session_with(fixture, AGENTSECRETS, &arguments, "auto", calls)
}

/// Runs a client session with any program and protocol mode.
#[track_caller]
fn run_session_with(fixture: &Fixture, command: &str, arguments: &[&str], mode: &str, calls: Value) -> Value {
    let plan = json!({
        "command": command, "args": arguments, "env": variables(fixture), "errors": stderr_file(fixture),
        "mode": mode, "calls": calls,
    });
    run(&mut python(fixture, "mcp/session.py", &[&plan.to_string()])).json()
}

/// The file with the session server's standard error.
fn stderr_file(fixture: &Fixture) -> PathBuf {
    fixture.home.path().join("errors")
}

/// Arguments of `api_call`: GET `path` with the secret as bearer token.
fn api_call_arguments(fixture: &Fixture, path: &str) -> Value {
    json!(["api_call", {"url": fixture.url(path), "injections": {"bearer": "API_KEY"}}])
}

/// Fails if `text` holds `secret` verbatim, in base64 at any alignment, in hex, or percent-encoded.
#[track_caller]
fn assert_clean(text: &str, secret: &str) {
    for form in encodings(secret) {
        let form = String::from_utf8(form).unwrap();
        assert!(!text.contains(&form), "{form} stands in {text}");
    }
}

/// All encodings of a value, including percent-encoding.
fn encodings(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = value_search::encodings(secret);
    forms.push(secret.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes());
    forms
}

#[test]
fn leak_check_finds_every_encoding() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for text in [
        secret.to_owned(),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        STANDARD_NO_PAD.encode(secret),
        percent,
    ] {
        let stands = |form: &Vec<u8>| text.contains(std::str::from_utf8(form).unwrap());
        assert!(encodings(secret).iter().any(stands), "{text}");
    }
}
