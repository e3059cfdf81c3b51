//! The original's published Python SDK, driving our program.

use std::path::Path;

use crate::clients::packages;
use crate::end_to_end::{Fixture, SECRET};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{free_address, run};
use crate::support::python::{PYTHON, program};

#[test]
fn published_sdk_works() {
    let fixture = sdk_fixture();
    fixture.home.set_secret("OTHER", "another-long-value");
    fixture.rule("secrets: [API_KEY]\nplaces: [auth, header, query, json, form]");
    let port = free_address().port().to_string();
    drive(&fixture, "proxy/sdk.py", &port, &[&fixture.url(""), &port, SECRET]);
    let spent = fixture
        .api
        .received()
        .iter()
        .filter(|got| got.headers.values().flatten().any(|v| v.contains(SECRET)))
        .count();
    assert!(spent >= 4, "{spent}");
}

#[test]
fn published_sdk_management_works() {
    let fixture = sdk_fixture();
    let port = free_address().port().to_string();
    drive(&fixture, "proxy/management.py", &port, &[&fixture.url(""), &port]);
    let policy = std::fs::read_to_string(fixture.home.path().join("policy.yaml")).unwrap();
    assert!(policy.contains("secrets: [API_KEY]") && !policy.contains("elsewhere"), "{policy}");
}

/// A fixture with the SDK mounted.
fn sdk_fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.home.bind_mount(packages(), "/mnt");
    fixture
}

/// Runs a program that uses the SDK, which finds ours by `PATH`.
#[track_caller]
fn drive(fixture: &Fixture, name: &str, port: &str, arguments: &[&str]) {
    let text = program(name);
    let mut python = fixture.home.command_outside([&[PYTHON, "-c", &*text], arguments].concat());
    for (name, value) in fixture.home.agentsecrets(["status"]).get_envs() {
        value.map(|value| python.env(name, value));
    }
    let folder = Path::new(AGENTSECRETS).parent().unwrap().display().to_string();
    python.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
    python.env("PYTHONPATH", "/mnt/python").env("AGENTSECRETS_PORT", port);
    let outcome = run(python.current_dir("/tmp"));
    let _ = fixture.home.agentsecrets(["proxy", "stop"]).output();
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
}
