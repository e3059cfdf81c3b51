//! Python clients, and Python servers for protocols that the test server does not speak.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use super::*;
use crate::support::process::{command, start};

#[test]
fn python_http_clients_work() {
    let fixture = fixture();
    let output = run(&mut python(&fixture, include_str!("programs/http.py"), &fixture.url(""))).ok();
    assert_eq!(output, "urllib 200\nrequests 200\nhttpx 200 HTTP/2\naiohttp 200\n");
    assert_secret_received(&fixture, 4);
}

#[test]
fn grpc_calls_authenticate_and_end_with_trailers() {
    let (fixture, mut server) = python_server_fixture(include_str!("programs/grpc_server.py"));
    let output = run(&mut python(&fixture, include_str!("programs/grpc_client.py"), &server.url)).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines,
        ["unary hello OK a trailer", "stream 0 1 2", "both a b", "failed NOT_FOUND nothing is there"]
    );
    for _ in lines {
        assert_eq!(server.read_line(), format!("Bearer {SECRET}"));
    }
}

#[test]
fn python_websocket_authenticates() {
    let (fixture, mut server) = python_server_fixture(include_str!("programs/websocket_server.py"));
    let output = run(&mut python(&fixture, include_str!("programs/websocket.py"), &server.url)).ok();
    assert_eq!(output, "one\ntwo\nb'three'\n");
    assert_eq!(server.read_line(), format!("Bearer {SECRET}"));
}

/// A Python server; dropping it ends it.
pub(crate) struct PythonServer {
    /// The server's URL as the agent sees it.
    pub(crate) url: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl PythonServer {
    pub(crate) fn read_line(&mut self) -> String {
        self.lines.next().expect("the server ended").unwrap()
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fixture whose `api.test` is `program`, which gets its certificate and key and prints its port.
pub(crate) fn python_server_fixture(program: &str) -> (Fixture, PythonServer) {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = fixture.authority.pem_leaf(&["api.test".to_owned()]);
    let paths = [("certificate", certificate), ("key", key)].map(|(name, pem)| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    });
    let mut python = command("/usr/bin/python3");
    python.args(["-c", program]).args(paths).env("PYTHONPATH", packages().join("python"));
    let mut child = start(&mut python);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut server = PythonServer { url: String::new(), child, lines, _folder: folder };
    let port = server.read_line().parse().unwrap();
    server.url = format!("https://api.test:{port}");
    fixture.rules(&[("api.test", port, "secrets: [API_KEY]")]);
    (fixture, server)
}
