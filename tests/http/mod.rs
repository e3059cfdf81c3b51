//! HTTP: every kind of exchange, valid and invalid.

mod framing;
mod responses;
mod timeouts;
mod websocket;

use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::support::process::{Outcome, run};
use crate::support::python::{PYTHON, with_program};

/// Runs a Python program as an agent with the test server's port and `arguments`.
#[track_caller]
fn python(fixture: &Fixture, program: &str, arguments: &[&str]) -> Outcome {
    let port = fixture.api.port().to_string();
    let arguments: Vec<&str> = [port.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    run(&mut with_program(fixture.home.run_agent([PYTHON]), &format!("http/programs/{program}"), &arguments))
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
