//! TLS: client hellos, client certificates, versions, roots, and passthrough connections.

mod client_certificate;
mod client_hello;
mod passthrough;
mod roots;
mod versions;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{Outcome, run};
use crate::support::upstream::{ClientAuth, Options, Upstream};

/// Runs a Python program as an agent.
#[track_caller]
fn python(fixture: &Fixture, program: &str, arguments: &[&str]) -> Outcome {
    let mut python = fixture.home.run_agent(["/usr/bin/python3", "-c", program]);
    run(python.args(arguments))
}
