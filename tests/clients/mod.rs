//! What agents really run, unmodified, with a placeholder for a credential, against servers that speak what
//! the real ones speak. That a client connects at all says that it trusts this run's authority.

pub(crate) mod git;
pub(crate) mod indexes;
mod java;
mod node;
mod programs;
pub(crate) mod python;
mod sdks;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::spine::{SECRET, World};
use crate::support::process::finish;
use crate::support::upstream::{Options, Upstream};

/// Where agents see the packages that the tests bring.
pub(crate) const PACKAGES: &str = "/mnt";

/// A world that shows agents the packages, whose server answers as `answers` does.
fn world_with(make: impl FnOnce(Options<'_>) -> Options<'_>) -> World {
    let mut world = World::with(|authority| Upstream::start(make(Options::https(authority, &["api.test"]))));
    world.home.show(packages(), PACKAGES);
    world
}

/// The same with the server that every test has.
pub(crate) fn world() -> World {
    world_with(|options| options)
}

/// An agent that is a Python program, with the server's URL as its argument.
pub(crate) fn python(world: &World, program: &str, url: &str) -> Command {
    let mut python = world.home.run_agent(["/usr/bin/python3", "-c", program, url]);
    python.env("PYTHONPATH", format!("{PACKAGES}/python"));
    python
}

/// The same with Node.
fn node(world: &World, program: &str, url: &str) -> Command {
    let mut node = world.home.run_agent(["/usr/bin/node", "-e", program, url]);
    node.env("NODE_PATH", format!("{PACKAGES}/node/node_modules"));
    node
}

/// The packages on disk, as `cargo xtask test` installs them.
pub(crate) fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-clients");
    let lists = [
        ("python", include_str!("python.txt")),
        ("mcp", include_str!("../mcp/python.txt")),
        ("signing", include_str!("../signing/python.txt")),
        ("node", include_str!("node/package-lock.json")),
    ];
    for (name, wanted) in lists {
        let installed = std::fs::read_to_string(folder.join(name).join("installed"));
        assert!(
            installed.is_ok_and(|installed| installed == wanted),
            "the {name} packages of this test are not installed: run `cargo xtask test`, which does it"
        );
    }
    folder
}

/// So many requests came, each with the secret as its bearer token.
#[track_caller]
pub(crate) fn spent(world: &World, requests: usize) {
    let received = world.api.received();
    assert_eq!(received.len(), requests, "{received:#?}");
    for request in received {
        assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"), "{request:#?}");
    }
}
