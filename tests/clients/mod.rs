//! Unmodified clients that agents use, with a placeholder as credential, against servers that speak the real
//! protocols. A successful connection shows that the client trusts this run's CA.

mod command_line;
pub(crate) mod git;
mod node;
pub(crate) mod package_indexes;
pub(crate) mod python;
mod sdks;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::run;
use crate::support::upstream::{Options, Upstream};

/// The mount point of the test packages in the sandbox.
pub(crate) const PACKAGES: &str = "/mnt";

/// A fixture with the packages mounted, whose server is configured by `make`.
fn fixture_with(make: impl FnOnce(Options<'_>) -> Options<'_>) -> Fixture {
    let mut fixture =
        Fixture::with(|authority| Upstream::start(make(Options::https(authority, &["api.test"]))));
    fixture.home.bind_mount(packages(), PACKAGES);
    fixture
}

/// A fixture with the packages mounted and the standard test server.
pub(crate) fn fixture() -> Fixture {
    fixture_with(|options| options)
}

/// A Python program as agent; its argument is the server's URL.
pub(crate) fn python(fixture: &Fixture, program: &str, url: &str) -> Command {
    let mut python = fixture.home.run_agent(["/usr/bin/python3", "-c", program, url]);
    python.env("PYTHONPATH", format!("{PACKAGES}/python"));
    python
}

/// A Node program as agent; its argument is the server's URL.
fn node(fixture: &Fixture, program: &str, url: &str) -> Command {
    let mut node = fixture.home.run_agent(["/usr/bin/node", "-e", program, url]);
    node.env("NODE_PATH", format!("{PACKAGES}/node/node_modules"));
    node
}

/// The packages that `cargo xtask test` installs.
pub(crate) fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-clients");
    let lists = [
        ("python", include_str!("python.txt")),
        ("mcp", include_str!("../mcp/python.txt")),
        ("signing", include_str!("../credentials/python.txt")),
        ("node", include_str!("node/package-lock.json")),
    ];
    for (name, expected) in lists {
        let installed = std::fs::read_to_string(folder.join(name).join("installed"));
        assert!(
            installed.is_ok_and(|installed| installed == expected),
            "the {name} packages of this test are not installed: run `cargo xtask test`, which does it"
        );
    }
    folder
}

/// Asserts that exactly `requests` requests came, each with the secret as bearer token.
#[track_caller]
pub(crate) fn assert_secret_received(fixture: &Fixture, requests: usize) {
    let received = fixture.api.received();
    assert_eq!(received.len(), requests, "{received:#?}");
    for request in received {
        assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"), "{request:#?}");
    }
}
