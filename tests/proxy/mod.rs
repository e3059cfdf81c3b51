//! The explicit proxy: its clients, its access control, and its life as a daemon.

mod access_control;
mod browser;
mod clients;
mod https_proxy;
mod lifecycle;
mod privileges;
mod sdk;
mod socket_activation;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::end_to_end::Fixture;
use crate::support::process::{Outcome, command, run};

/// Arguments for a foreground proxy on any port.
const START_ARGUMENTS: [&str; 5] = ["proxy", "start", "--foreground", "--port", "0"];

/// A foreground proxy; dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) variables: serde_json::Map<String, serde_json::Value>,
}

impl Proxy {
    /// Starts a proxy for the fixture's home on any port.
    #[track_caller]
    pub(crate) fn start(fixture: &Fixture) -> Self {
        Self::start_command(fixture, fixture.home.agentsecrets(START_ARGUMENTS))
    }

    /// Starts the proxy as `started` says.
    #[track_caller]
    fn start_command(fixture: &Fixture, mut started: Command) -> Self {
        let mut child = started.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port =
            line.strip_prefix("the proxy listens on 127.0.0.1:").and_then(|rest| rest.split(',').next());
        let port =
            port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("it did not start: {line}"));
        let variables = run(&mut fixture.home.agentsecrets(["proxy", "env", "--json"])).json();
        let serde_json::Value::Object(variables) = variables else { panic!("{variables}") };
        Self { child, port, variables }
    }

    /// A program with the proxy variables that a shell would set.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut client = command(program);
        for (name, value) in &self.variables {
            client.env(name, value.as_str().unwrap());
        }
        client
    }

    /// Runs curl through the proxy.
    #[track_caller]
    pub(crate) fn curl(&self, arguments: &[&str]) -> Outcome {
        run(self.client("/usr/bin/curl").arg("-sS").args(arguments))
    }

    /// Runs curl toward the proxy itself; returns status and body.
    #[track_caller]
    pub(crate) fn request(&self, arguments: &[&str], path: &str) -> (String, String) {
        let url = format!("http://localhost:{}{path}", self.port);
        let mut curl = command("/usr/bin/curl");
        let text = run(curl.args(["-sS", "-w", "\n%{http_code}"]).args(arguments).arg(url)).ok();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    }

    /// The proxy's response to these bytes, until it closes the connection.
    #[track_caller]
    fn send_raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
