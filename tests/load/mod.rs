//! Much at once: big bodies in little memory, many connections, and nobody who suffers for another.

mod crowd;
mod fairness;
mod memory;

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command};

use crate::spine::{Agent, World};

/// An agent that does one thing for each line that it is told; see there.
const CLIENT: &str = include_str!("client.py");

/// That agent, running.
struct Driven {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    interceptor: u32,
    _agent: Agent,
}

impl Driven {
    fn start(world: &World) -> Self {
        Self::started(world, world.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "api.test"]))
    }

    /// `run` is a command of `World::home` that lacks its last argument, the port.
    fn started(world: &World, mut run: Command) -> Self {
        run.arg(world.api.port().to_string());
        let mut agent = Agent::started(run);
        let interceptor = agent.interceptor();
        let input = agent.child.stdin.take().unwrap();
        let output = BufReader::new(agent.child.stdout.take().unwrap());
        Self { input, output, interceptor, _agent: agent }
    }

    /// Tells it what to do.
    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// What it says of it.
    #[track_caller]
    fn said(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    #[track_caller]
    fn does(&mut self, what: &str) -> serde_json::Value {
        self.tell(what);
        self.said()
    }

    /// The interceptor's memory, in bytes: what it has to itself of what it shares.
    fn memory(&self) -> i64 {
        pss(&format!("/proc/{}/smaps_rollup", self.interceptor))
    }

    /// The processor time that the interceptor has used, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.interceptor)).unwrap();
        let words: Vec<u64> =
            stat.rsplit_once(')').unwrap().1.split(' ').map(|w| w.parse().unwrap_or(0)).collect();
        words[12] + words[13]
    }
}

/// The bytes that a process has to itself, and its part of what it shares.
fn pss(rollup: &str) -> i64 {
    let rollup = std::fs::read_to_string(rollup).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
}
