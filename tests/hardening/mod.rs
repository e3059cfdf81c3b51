//! Hardening of our own processes: their privileges, access to them, their failures, and requests that try to
//! be authorized as other ones.

mod audit_disk;
mod failures;
mod overrides;
mod path_agreement;
pub(crate) mod privileges;
mod sudo_and_prompts;

use std::io::{BufRead, BufReader, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::end_to_end::{Fixture, WaitingAgent};

/// An agent that sends a request on command and prints the status; `000` is no response.
struct RequestingAgent {
    agent: WaitingAgent,
    output: BufReader<std::process::ChildStdout>,
}

impl RequestingAgent {
    /// Starts it and sends one request.
    fn start(fixture: &Fixture) -> Self {
        let script = format!(
            "echo ready; while read line; do curl -sS -m 3 -o /dev/null -w '%{{http_code}}\\n' \
             -H 'Authorization: Bearer AS_SECRET_API_KEY' {} 2>/dev/null; done",
            fixture.url("/echo")
        );
        let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
        let output = BufReader::new(agent.child.stdout.take().unwrap());
        Self { agent, output }
    }

    /// The status of one more request.
    fn request(&mut self) -> String {
        self.agent.child.stdin.as_mut().unwrap().write_all(b"ask\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Repeats the request until it has the expected status; fails after 20 seconds.
    fn wait_for_status(&mut self, expected: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let status = self.request();
            if status == expected {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{status}, not {expected}");
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
pub(crate) fn proc_status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).trim().to_owned()
}

/// The children of `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tree = crate::support::value_search::process_tree(pid);
    tree.into_iter().filter(|child| *child != pid && proc_status(*child, "PPid") == pid.to_string()).collect()
}
