//! Python's clients, and servers in Python for what our own server does not speak.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use super::*;
use crate::support::process::{command, start};

#[test]
fn urllib_requests_httpx_and_aiohttp_work_unmodified() {
    let world = world();
    let said = finish(&mut python(&world, include_str!("programs/http.py"), &world.url(""))).ok();
    assert_eq!(said, "urllib 200\nrequests 200\nhttpx 200 HTTP/2\naiohttp 200\n");
    spent(&world, 4);
}

#[test]
fn grpc_calls_of_every_kind_carry_the_secret_and_end_with_their_trailers() {
    let (world, mut server) = world_of_python(include_str!("programs/grpc_server.py"));
    let said = finish(&mut python(&world, include_str!("programs/grpc_client.py"), &server.url)).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        ["unary hello OK a trailer", "stream 0 1 2", "both a b", "failed NOT_FOUND nothing is there"]
    );
    for _ in lines {
        assert_eq!(server.line(), format!("Bearer {SECRET}"));
    }
}

#[test]
fn websockets_opens_a_connection_with_the_secret_and_talks() {
    let (world, mut server) = world_of_python(include_str!("programs/websocket_server.py"));
    let said = finish(&mut python(&world, include_str!("programs/websocket.py"), &server.url)).ok();
    assert_eq!(said, "one\ntwo\nb'three'\n");
    assert_eq!(server.line(), format!("Bearer {SECRET}"));
}

/// A server that is a Python program; dropping it ends it.
pub(crate) struct PythonServer {
    /// Where an agent finds it.
    pub(crate) url: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl PythonServer {
    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("the server ended").unwrap()
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A world whose `api.test` is `program`, which is given its certificate and key, and prints its port.
pub(crate) fn world_of_python(program: &str) -> (World, PythonServer) {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = world.authority.pem_leaf(&["api.test".to_owned()]);
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
    let port = server.line().parse().unwrap();
    server.url = format!("https://api.test:{port}");
    world.rules(&[("api.test", port, "secrets: [API_KEY]")]);
    (world, server)
}
