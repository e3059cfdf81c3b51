//! A client that speaks line by line, and sends messages that no library would.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::end_to_end::Fixture;

/// A running server and both ends of its pipes.
pub(super) struct RawClient {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl RawClient {
    /// Starts a server and completes the initialisation.
    #[track_caller]
    pub(super) fn initialized(fixture: &Fixture) -> Self {
        let mut raw = Self::start(fixture);
        let client = json!({"name": "raw", "version": "1"});
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let output = raw.request(0, "initialize", hello);
        assert_eq!(output["result"]["serverInfo"]["name"], "AgentSecrets", "{output}");
        raw.send_line(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        raw
    }

    pub(super) fn start(fixture: &Fixture) -> Self {
        let mut command = fixture.home.agentsecrets(["mcp", "serve"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout }
    }

    pub(super) fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    pub(super) fn send_request(&mut self, id: u32, method: &str, params: Value) {
        self.send_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
    }

    pub(super) fn send_tool_call(&mut self, id: u32, tool: &str, arguments: Value) {
        self.send_request(id, "tools/call", json!({"name": tool, "arguments": arguments}));
    }

    /// Sends a request and waits for its response.
    #[track_caller]
    pub(super) fn request(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.send_request(id, method, params);
        self.recv()
    }

    #[track_caller]
    pub(super) fn recv(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Closes the server's input.
    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Closes the server's output.
    pub(super) fn close_output(&mut self) {
        self.stdout = None;
    }

    /// Waits for the server to end; returns the exit code.
    #[track_caller]
    pub(super) fn wait_for_exit(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for RawClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
