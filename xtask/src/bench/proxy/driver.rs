//! A shell that starts clients, as an agent or not, and the processes whose cost is measured.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::peers::{CLIENTS_CORE, PROXYS_CORE, Running};
use crate::demo::test_home::TestHome;

/// Evaluates each line of its input, and prints DONE after it.
const SHELL: &str = "while IFS= read -r line; do eval \"$line\"; echo DONE; done";

/// Opens connections, sends one request on each, and keeps them open until a line arrives.
const HOLD: &str = r"
import socket, ssl, sys
host, count = sys.argv[1], int(sys.argv[2])
trust = ssl.create_default_context(); trust.check_hostname = False; trust.verify_mode = ssl.CERT_NONE
held = []
for _ in range(count):
    one = trust.wrap_socket(socket.create_connection((host, 443)), server_hostname=None if host[0].isdigit() else host)
    one.sendall(b'GET /1k HTTP/1.1\r\nHost: api.demo\r\n\r\n')
    got = b''
    while not got.endswith(b'x\n'): got += one.recv(65536)
    held.append(one)
print('HELD', flush=True)
sys.stdin.readline()
";

/// The shell of the clients.
pub(super) struct Driver {
    shell: Child,
    output: BufReader<ChildStdout>,
    /// The process whose cost is measured, with its descendants other than clients.
    counted: Option<u32>,
    _peer: Option<Running>,
}

impl Driver {
    /// Measures no process.
    pub(super) fn without(secret: &str) -> Result<Self> {
        Self::start(outside(secret), None, None)
    }

    /// Measures `peer`.
    pub(super) fn beside(peer: Running, secret: &str) -> Result<Self> {
        Self::start(outside(secret), Some(peer.pid()), Some(peer))
    }

    /// Runs clients as an agent, and measures all processes of AgentSecrets.
    pub(super) fn inside(home: &TestHome) -> Result<Self> {
        let agent = home.agent(&["taskset", "--cpu-list", CLIENTS_CORE, "bash", "-c", SHELL]);
        // AgentSecrets runs on the core of the proxy; the clients move to the other core.
        let mut pinned = Command::new("taskset");
        pinned.args(["--cpu-list", PROXYS_CORE]).arg(agent.get_program()).args(agent.get_args());
        pinned.current_dir("/");
        pinned.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut driver = Self::start(pinned, None, None)?;
        driver.counted = Some(driver.shell.id());
        driver.run_line("true")?;
        Ok(driver)
    }

    fn start(mut command: Command, counted: Option<u32>, peer: Option<Running>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().context("cannot start the clients' shell")?;
        let output = BufReader::new(shell.stdout.take().context("the shell has no output")?);
        Ok(Self { shell, output, counted, _peer: peer })
    }

    /// Runs `line` and returns its output.
    pub(super) fn run_line(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.until("DONE")
    }

    /// The CPU time of the measured processes, in nanoseconds.
    pub(super) fn cpu(&self) -> u64 {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// The memory of the measured processes in KiB (PSS): idle, and with `held` open connections.
    pub(super) fn memory(&mut self, host: &str, held: u32) -> Result<(u64, u64)> {
        let pss = |driver: &Self| driver.processes().into_iter().map(pss_of).sum::<u64>();
        let idle = pss(self);
        self.send(&format!(
            "/usr/bin/python3 -c '{}' {host} {held}",
            HOLD.replace('\'', "'\\''").replace('\n', "'$'\\n''")
        ))?;
        self.until("HELD")?;
        let full = pss(self);
        self.send("end")?;
        self.until("DONE")?;
        Ok((idle, full))
    }

    fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.shell.stdin.as_mut().context("the shell has no input")?;
        writeln!(stdin, "{line}").context("the clients' shell is gone")
    }

    fn until(&mut self, end: &str) -> Result<String> {
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("the clients' shell ended: {printed}");
            }
            if line.trim_end() == end {
                return Ok(printed);
            }
            printed.push_str(&line);
        }
    }

    /// The measured processes: those of the tree that are no clients.
    fn processes(&self) -> Vec<u32> {
        let Some(root) = self.counted else { return Vec::new() };
        let mut found = vec![root];
        let mut at = 0;
        while let Some(pid) = found.get(at).copied() {
            at += 1;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok())
                    .filter(|pid| !is_client(*pid)),
            );
        }
        found
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn outside(secret: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", CLIENTS_CORE, "bash", "-c", SHELL]).env("API_KEY", secret);
    command
}

fn is_client(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ["bash", "wrk", "python3", "taskset"].contains(&name.trim_end())
}

/// The CPU time of all running threads, in nanoseconds.
fn cpu_of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    times.sum()
}

fn pss_of(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
