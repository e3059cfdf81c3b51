//! HTTP whole: every kind of exchange, and every way to get one wrong.

mod bodies;
mod frames;
mod patience;
mod raw;
mod websocket;

use crate::spine::{Agent, SECRET, World};
use crate::support::process::{Outcome, finish};
use crate::support::python::{PYTHON, with_program};

/// Runs a program of ours as an agent, with the test server's port and `arguments`.
#[track_caller]
fn python(world: &World, program: &str, arguments: &[&str]) -> Outcome {
    let port = world.api.port().to_string();
    let arguments: Vec<&str> = [port.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    finish(&mut with_program(world.home.run_agent([PYTHON]), &format!("http/programs/{program}"), &arguments))
}

/// How much memory a process has in use, in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
