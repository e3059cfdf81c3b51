//! A client that speaks line by line, and says what no library would.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::spine::World;

/// A running server and both ends of its pipes.
pub(super) struct Raw {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Raw {
    /// A server that has been greeted.
    #[track_caller]
    pub(super) fn greeted(world: &World) -> Self {
        let mut raw = Self::started(world);
        let client = json!({"name": "raw", "version": "1"});
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let said = raw.ask(0, "initialize", hello);
        assert_eq!(said["result"]["serverInfo"]["name"], "AgentSecrets", "{said}");
        raw.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        raw
    }

    pub(super) fn started(world: &World) -> Self {
        let mut command = world.home.agentsecrets(["mcp", "serve"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout }
    }

    /// Sends one line.
    pub(super) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    /// Sends a request.
    pub(super) fn request(&mut self, id: u32, method: &str, params: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
    }

    /// Calls a tool.
    pub(super) fn call(&mut self, id: u32, tool: &str, arguments: Value) {
        self.request(id, "tools/call", json!({"name": tool, "arguments": arguments}));
    }

    /// Sends a request, and waits for its answer.
    #[track_caller]
    pub(super) fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.request(id, method, params);
        self.hear()
    }

    /// The next line.
    #[track_caller]
    pub(super) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Closes what it reads.
    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Closes what it writes to.
    pub(super) fn close_output(&mut self) {
        self.stdout = None;
    }

    /// Waits until it has ended, and says how.
    #[track_caller]
    pub(super) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
