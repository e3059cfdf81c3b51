//! Load: large bodies in little memory, many connections, and fairness.

mod connections;
mod fairness;
mod memory;

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command};

use crate::end_to_end::{Fixture, WaitingAgent};

/// An agent that does one action per input line.
const CLIENT: &str = include_str!("client.py");

/// A running agent of that kind.
struct DrivenAgent {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    interceptor: u32,
    _agent: WaitingAgent,
}

impl DrivenAgent {
    fn start(fixture: &Fixture) -> Self {
        Self::start_command(fixture, fixture.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "api.test"]))
    }

    /// `run` is a command of `Fixture::home` without its last argument, the port.
    fn start_command(fixture: &Fixture, mut run: Command) -> Self {
        run.arg(fixture.api.port().to_string());
        let mut agent = WaitingAgent::start_command(run);
        let interceptor = agent.interceptor();
        let input = agent.child.stdin.take().unwrap();
        let output = BufReader::new(agent.child.stdout.take().unwrap());
        Self { input, output, interceptor, _agent: agent }
    }

    /// Sends an action.
    fn send(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The reply to an action.
    #[track_caller]
    fn read_reply(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    #[track_caller]
    fn request(&mut self, what: &str) -> serde_json::Value {
        self.send(what);
        self.read_reply()
    }

    /// The interceptor's proportional set size in bytes.
    fn memory(&self) -> i64 {
        pss(&format!("/proc/{}/smaps_rollup", self.interceptor))
    }

    /// CPU time of the interceptor in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.interceptor)).unwrap();
        let words: Vec<u64> =
            stat.rsplit_once(')').unwrap().1.split(' ').map(|w| w.parse().unwrap_or(0)).collect();
        words[12] + words[13]
    }
}

/// The proportional set size in bytes.
fn pss(rollup: &str) -> i64 {
    let rollup = std::fs::read_to_string(rollup).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
}
