//! TLS whole: what clients open it with, what servers ask in return, and the connections that we leave
//! closed.

mod client_certificate;
mod hello;
mod passthrough;
mod roots;
mod versions;

use crate::spine::{SECRET, World};
use crate::support::process::{Outcome, finish};
use crate::support::upstream::{Asked, Options, Upstream};

/// Runs a Python program as an agent.
#[track_caller]
fn python(world: &World, program: &str, arguments: &[&str]) -> Outcome {
    let mut python = world.home.run_agent(["/usr/bin/python3", "-c", program]);
    finish(python.args(arguments))
}
