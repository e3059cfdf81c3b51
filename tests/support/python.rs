//! Python programs as agents and servers: peers that do not share our libraries.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certificate::Authority;
use super::process::command;

/// Debian's Python: agents can read it.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// The source of a program in the tests' folder.
pub(crate) fn program(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests")).join(name)
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    port: u16,
    _certificate: tempfile::TempDir,
}

impl Server {
    /// Starts a program that gets a PEM file with certificate and key for `name` as its argument, listens on
    /// loopback and prints its port.
    pub(crate) fn start(program: &str, authority: &Authority, name: &str) -> Self {
        let leaf = authority.leaf(&[name.to_owned()], false);
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("server.pem");
        let block = |kind: &str, der: &[u8]| {
            format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
        };
        let chain: String = leaf.chain.iter().map(|certificate| block("CERTIFICATE", certificate)).collect();
        std::fs::write(&pem, chain + &block("PRIVATE KEY", leaf.key.secret_der())).unwrap();
        let mut server = command(PYTHON);
        server.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-clients/stream"));
        let mut child = server.arg(path(program)).arg(&pem).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{program} did not start"));
        Self { child, port, _certificate: folder }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `command` with a program's source and its arguments.
pub(crate) fn with_program(mut command: Command, name: &str, arguments: &[&str]) -> Command {
    command.args(["-c", &program(name)]).args(arguments);
    command
}
