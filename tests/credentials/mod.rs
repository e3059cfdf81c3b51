//! Computed credentials: signatures, tokens, and values captured from responses. The servers verify them with
//! independent libraries.

mod hmac;
mod jwt;
mod oauth;
mod response_capture;
mod sigv4;
mod token_rotation;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command};

use crate::clients::{PACKAGES, packages};
use crate::support::certificate::Authority;
use crate::support::home::Home;
use crate::support::process::{Outcome, command, run, start};

/// A home with the packages mounted for its agents, and the CA of its servers.
struct Fixture {
    home: Home,
    authority: Authority,
}

impl Fixture {
    /// All `hosts` resolve to loopback.
    fn new(hosts: &[&str]) -> Self {
        let (mut home, authority) = (Home::new(), Authority::new());
        home.trust(&authority.pem());
        home.bind_mount(packages(), PACKAGES);
        for host in hosts {
            home.add_host(host, [127, 0, 0, 1]);
        }
        Self { home, authority }
    }

    /// Writes a policy with the rules `allow` (a YAML list) and the further keys `more`.
    fn policy(&self, more: &str, allow: &str) {
        let allow: String = allow.lines().map(|line| format!("      {line}\n")).collect();
        self.home.write_policy(&format!("version: 1\n{more}\nagents:\n  - name: coder\n    allow:\n{allow}"));
    }

    /// Runs a Python program as an agent.
    #[track_caller]
    fn python(&self, program: &str, arguments: &[&str]) -> Outcome {
        run(self.agent(&["/usr/bin/python3", "-c", program]).args(arguments))
    }

    /// An agent with the packages mounted.
    fn agent(&self, words: &[&str]) -> Command {
        let mut agent = self.home.run_agent(words);
        agent.env("PYTHONPATH", format!("{PACKAGES}/signing"));
        agent
    }

    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> String {
        run(self.agent(&["curl", "-sS"]).args(arguments)).ok()
    }

    /// Starts a Python program with a certificate for `host`, its key and `arguments`; it prints its port.
    fn start_server(&self, program: &str, host: &str, arguments: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = self.authority.pem_leaf(&[host.to_owned()]);
        let paths = [("certificate", certificate), ("key", key)].map(|(name, pem)| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        });
        let mut python = command("/usr/bin/python3");
        python
            .args(["-c", program])
            .args(paths)
            .args(arguments)
            .env("PYTHONPATH", format!("{0}/signing:{0}/python", packages().display()));
        let mut child = start(&mut python);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Server { port: 0, host: host.to_owned(), child, lines, _folder: folder };
        server.port = server.read_line().parse().unwrap();
        server
    }
}

/// A Python server; dropping it ends it.
struct Server {
    port: u16,
    host: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Server {
    #[track_caller]
    fn read_line(&mut self) -> String {
        self.lines.next().expect("the server ended").unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.host, self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
