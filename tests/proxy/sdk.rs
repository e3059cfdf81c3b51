//! The original's Python SDK, as it is published, driving our program.

use std::path::Path;

use crate::clients::packages;
use crate::spine::{SECRET, World};
use crate::support::home::AGENTSECRETS;
use crate::support::process::finish;
use crate::support::python::{PYTHON, program};

#[test]
fn the_published_sdk_calls_spawns_and_intercepts_with_our_program() {
    let mut world = World::new();
    world.home.secret("OTHER", "another-long-value");
    world.rule("secrets: [API_KEY]\nplaces: [auth, header, query, json, form]");
    world.home.show(packages(), "/mnt");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut python =
        world.home.beside([PYTHON, "-c", &program("proxy/sdk.py"), &world.url(""), &port, SECRET]);
    for (name, value) in world.home.agentsecrets(["status"]).get_envs() {
        value.map(|value| python.env(name, value));
    }
    let folder = Path::new(AGENTSECRETS).parent().unwrap().display().to_string();
    python.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
    python.env("PYTHONPATH", "/mnt/python").env("AGENTSECRETS_PORT", &port);
    let outcome = finish(&mut python);
    let _ = world.home.agentsecrets(["proxy", "stop"]).output();
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let spent = world
        .api
        .received()
        .iter()
        .filter(|got| got.headers.values().flatten().any(|v| v.contains(SECRET)))
        .count();
    assert!(spent >= 4, "{spent}");
}
