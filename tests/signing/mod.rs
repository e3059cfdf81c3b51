//! Credentials that are computed: signatures, tokens, and what an answer mints. Servers check what arrives
//! with libraries that are not ours.

mod aws;
mod hmac;
mod jwt;
mod minted;
mod oauth;
mod rotated;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command};

use crate::clients::{PACKAGES, packages};
use crate::support::certificate::Authority;
use crate::support::home::Home;
use crate::support::process::{Outcome, command, finish, start};

/// A home whose agents see the packages, and the authority that its servers stand under.
struct World {
    home: Home,
    authority: Authority,
}

impl World {
    /// Every one of `hosts` is on loopback.
    fn new(hosts: &[&str]) -> Self {
        let (mut home, authority) = (Home::new(), Authority::new());
        home.trust(&authority.pem());
        home.show(packages(), PACKAGES);
        for host in hosts {
            home.host(host, [127, 0, 0, 1]);
        }
        Self { home, authority }
    }

    /// Puts a policy in force whose rules are `allow` (YAML, a list), and whose other keys are `more`.
    fn policy(&self, more: &str, allow: &str) {
        let allow: String = allow.lines().map(|line| format!("      {line}\n")).collect();
        self.home.policy(&format!("version: 1\n{more}\nagents:\n  - name: coder\n    allow:\n{allow}"));
    }

    /// Runs a Python program as an agent.
    #[track_caller]
    fn python(&self, program: &str, arguments: &[&str]) -> Outcome {
        finish(self.agent(&["/usr/bin/python3", "-c", program]).args(arguments))
    }

    /// An agent that sees the packages.
    fn agent(&self, words: &[&str]) -> Command {
        let mut agent = self.home.run_agent(words);
        agent.env("PYTHONPATH", format!("{PACKAGES}/signing"));
        agent
    }

    /// Runs curl as an agent.
    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> String {
        finish(self.agent(&["curl", "-sS"]).args(arguments)).ok()
    }

    /// Starts a Python program that is given a certificate for `host`, its key and `arguments`, and prints its
    /// port.
    fn server(&self, program: &str, host: &str, arguments: &[&str]) -> Server {
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
        server.port = server.line().parse().unwrap();
        server
    }
}

/// A server that is a Python program; dropping it ends it.
struct Server {
    port: u16,
    host: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// The next line that it prints.
    #[track_caller]
    fn line(&mut self) -> String {
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
