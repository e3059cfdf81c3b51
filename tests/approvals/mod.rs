//! Requests that need approval: they are shown to the operator, decided over the admin socket, and sent
//! exactly as shown.

mod decisions;
mod limits;
mod notifications;
mod request_binding;
mod self_approval;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::end_to_end::Fixture;
use crate::support::home::Home;
use crate::support::process::{Outcome, run};

/// Each input line holds curl's arguments; the output is the response body and status.
const AGENT_SCRIPT: &str = r#"echo ready
while read -r line; do
  eval "curl -sS --max-time 60 -w '\n%{http_code}\n' -H 'Authorization: Bearer AS_SECRET_API_KEY' $line"
  echo end
done"#;

/// Sends one request that needs approval, and one that does not for each input line.
const PENDING_AND_FREE_SCRIPT: &str = r#"echo ready
as_agent() { curl -sS -o /dev/null -w '%{http_code}\n' -H 'Authorization: Bearer AS_SECRET_API_KEY' "$1"; }
as_agent $1 &
while read -r line; do as_agent $2; done
wait"#;

/// A fixture whose only rule requires approval.
fn fixture_with_approval(wait: &str, more: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.rule(&format!("secrets: [API_KEY]\napprove: {{ wait: {wait} }}\n{more}"));
    fixture
}

/// An agent that sends a request on command; dropping it ends it.
struct RequestingAgent {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl RequestingAgent {
    fn start(fixture: &Fixture) -> Self {
        Self::start_program(fixture.home.run_agent(["sh", "-c", AGENT_SCRIPT]))
    }

    fn start_program(mut program: Command) -> Self {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, output }
    }

    /// Sends a request without waiting for the response.
    fn send(&mut self, arguments: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{arguments}").unwrap();
    }

    /// Waits for the response: status and body.
    #[track_caller]
    fn response(&mut self) -> (u16, String) {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the agent ended: {lines:?}");
            if line == "end\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines.pop().unwrap();
        (status.parse().unwrap_or_else(|_| panic!("{lines:?} {status}")), lines.join("\n"))
    }

    /// Starts an agent that has requested `/pay` (pending) and requests `/other` (allowed) on command.
    fn with_pending_request(fixture: &Fixture) -> Self {
        let port = fixture.api.port();
        let pending = "secrets: [API_KEY]\napprove: { wait: 30s }";
        let free = "secrets: [API_KEY]\npaths: [/other]";
        fixture.rules(&[("api.test", port, free), ("api.test", port, pending)]);
        let (pending, free) = (fixture.url("/pay"), fixture.url("/other"));
        Self::start_program(fixture.home.run_agent([
            "sh",
            "-c",
            PENDING_AND_FREE_SCRIPT,
            "sh",
            &pending,
            &free,
        ]))
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Requests the allowed path; returns the status.
    fn request_free_path(&mut self) -> String {
        self.send("");
        self.read_line()
    }

    /// Sends a request that is rejected; returns status and JSON.
    #[track_caller]
    fn rejected(&mut self, arguments: &str) -> (u16, Value) {
        self.send(arguments);
        let (status, body) = self.response();
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}")))
    }
}

impl Drop for RequestingAgent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// `approvals --watch --json`, run by the operator.
struct ApprovalWatcher {
    child: Child,
    lines: Receiver<String>,
}

impl ApprovalWatcher {
    fn start(home: &Home) -> Self {
        Self::start_program(home.agentsecrets(["approvals", "--watch", "--show-body", "--json"]))
    }

    fn start_program(mut program: Command) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = channel();
        // Ends with the child, or when the receiver is dropped.
        std::thread::spawn(move || output.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next approval request.
    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("nothing was asked");
        serde_json::from_str(&line).unwrap()
    }

    #[track_caller]
    fn next_id(&mut self) -> String {
        self.next()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for ApprovalWatcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pending approval requests.
#[track_caller]
fn pending_approvals(home: &Home) -> Vec<Value> {
    let all = run(&mut home.agentsecrets(["approvals", "--json"])).json();
    all.as_array().unwrap().clone()
}

/// Runs `agentsecrets` as the operator.
#[track_caller]
fn operator(home: &Home, words: &[&str]) -> Outcome {
    run(&mut home.agentsecrets(words))
}

/// The approval id in a rejection's message.
#[track_caller]
fn approval_id(rejection: &Value) -> String {
    let message = rejection["message"].as_str().unwrap();
    let (_, rest) = message.split_once("agentsecrets approve ").unwrap_or_else(|| panic!("{message}"));
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
}
