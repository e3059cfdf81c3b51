//! Ourselves under attack: what our processes may do, what others may do to them, what is left when they
//! fail, and requests that try to be judged as other ones.

mod ends;
pub(crate) mod ourselves;
mod people;
mod servers;
mod tricks;

use std::io::{BufRead, BufReader, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spine::{Agent, World};

/// An agent that asks the server whenever it is told to, and says the status that it got; `000` is none.
struct Asking {
    agent: Agent,
    output: BufReader<std::process::ChildStdout>,
}

impl Asking {
    /// Starts it and asks once.
    fn start(world: &World) -> Self {
        let script = format!(
            "echo ready; while read line; do curl -sS -m 3 -o /dev/null -w '%{{http_code}}\\n' \
             -H 'Authorization: Bearer AS_SECRET_API_KEY' {} 2>/dev/null; done",
            world.url("/echo")
        );
        let mut agent = Agent::started(world.home.run_agent(["bash", "-c", &script]));
        let output = BufReader::new(agent.child.stdout.take().unwrap());
        Self { agent, output }
    }

    /// The status of one more request.
    fn ask(&mut self) -> String {
        self.agent.child.stdin.as_mut().unwrap().write_all(b"ask\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Asks until the status is `wanted`; fails after 20 seconds.
    fn until(&mut self, wanted: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let status = self.ask();
            if status == wanted {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{status}, not {wanted}");
        }
    }

    fn interceptor(&self) -> u32 {
        self.agent.interceptor()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.interceptor().cast_signed()), signal).unwrap();
    }
}

/// A line of `/proc/<pid>/status`.
pub(crate) fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).trim().to_owned()
}

/// The processes that `pid` started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tree = crate::support::memory::tree(pid);
    tree.into_iter().filter(|child| *child != pid && status(*child, "PPid") == pid.to_string()).collect()
}
