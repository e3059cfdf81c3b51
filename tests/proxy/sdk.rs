//! The original's Python SDK, as it is published, driving our program.

use std::path::Path;

use crate::clients::packages;
use crate::spine::{SECRET, World};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{finish, free_address};
use crate::support::python::{PYTHON, program};

#[test]
fn the_published_sdk_calls_spawns_and_intercepts_with_our_program() {
    let world = sdk_world();
    world.home.secret("OTHER", "another-long-value");
    world.rule("secrets: [API_KEY]\nplaces: [auth, header, query, json, form]");
    let port = free_address().port().to_string();
    drive(&world, "proxy/sdk.py", &port, &[&world.url(""), &port, SECRET]);
    let spent = world
        .api
        .received()
        .iter()
        .filter(|got| got.headers.values().flatten().any(|v| v.contains(SECRET)))
        .count();
    assert!(spent >= 4, "{spent}");
}

#[test]
fn its_management_clients_read_what_our_commands_print() {
    let world = sdk_world();
    let port = free_address().port().to_string();
    drive(&world, "proxy/management.py", &port, &[&world.url(""), &port]);
    let policy = std::fs::read_to_string(world.home.path().join("policy.yaml")).unwrap();
    assert!(policy.contains("secrets: [API_KEY]") && !policy.contains("elsewhere"), "{policy}");
}

/// A world whose agents and people see the SDK.
fn sdk_world() -> World {
    let mut world = World::new();
    world.home.show(packages(), "/mnt");
    world
}

/// Runs a program that uses the SDK, which finds ours by `PATH`.
#[track_caller]
fn drive(world: &World, name: &str, port: &str, arguments: &[&str]) {
    let text = program(name);
    let mut python = world.home.beside([&[PYTHON, "-c", &*text], arguments].concat());
    for (name, value) in world.home.agentsecrets(["status"]).get_envs() {
        value.map(|value| python.env(name, value));
    }
    let folder = Path::new(AGENTSECRETS).parent().unwrap().display().to_string();
    python.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
    python.env("PYTHONPATH", "/mnt/python").env("AGENTSECRETS_PORT", port);
    let outcome = finish(python.current_dir("/tmp"));
    let _ = world.home.agentsecrets(["proxy", "stop"]).output();
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
}
