//! The main case: an agent uses a secret that it never holds, and nothing else gets through.

mod clients;
mod interceptor_death;
mod kill_loop;
mod redaction;
mod rejections;
mod secret_isolation;
mod startup_errors;
mod target_agreement;

use std::net::IpAddr;

use crate::support::certificate::Authority;
use crate::support::home::Home;
use crate::support::process::{Outcome, run};
use crate::support::upstream::{Options, Upstream};

/// The stored secret. The agent must never see it.
pub(crate) const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";

/// A home with one secret, a policy for one agent, and one server that the policy allows.
pub(crate) struct Fixture {
    pub(crate) home: Home,
    pub(crate) authority: Authority,
    pub(crate) api: Upstream,
}

impl Fixture {
    /// With the server `api.test` on loopback.
    pub(crate) fn new() -> Self {
        Self::with(|authority| Upstream::start(Options::https(authority, &["api.test"])))
    }

    /// With the server that `start` returns, as `api.test`.
    pub(crate) fn with(start: impl FnOnce(&Authority) -> Upstream) -> Self {
        let authority = Authority::new();
        let api = start(&authority);
        let mut home = Home::new();
        home.add_host("api.test", api.address().ip());
        home.trust(&authority.pem());
        home.set_secret("API_KEY", SECRET);
        let fixture = Self { home, authority, api };
        fixture.rule("secrets: [API_KEY]");
        fixture
    }

    /// Writes a policy whose only rule allows the server, with `more` keys (YAML, one line).
    pub(crate) fn rule(&self, more: &str) {
        self.rules(&[("api.test", self.api.port(), more)]);
    }

    /// Writes a policy with these rules: host, port, further keys.
    pub(crate) fn rules(&self, rules: &[(&str, u16, &str)]) {
        let mut policy = String::from("version: 1\nagents:\n  - name: coder\n    allow:\n");
        for (host, port, more) in rules {
            policy
                .push_str(&format!("      - host: {host}\n        ports: [{port}]\n        private: true\n"));
            for line in more.lines() {
                policy.push_str(&format!("        {line}\n"));
            }
        }
        self.home.write_policy(&policy);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    /// Runs curl as an agent with the placeholder as bearer token.
    #[track_caller]
    pub(crate) fn curl(&self, more: &[&str], path: &str) -> Outcome {
        self.curl_at(more, &self.url(path))
    }

    /// Runs curl as an agent toward any URL.
    #[track_caller]
    pub(crate) fn curl_at(&self, more: &[&str], url: &str) -> Outcome {
        let mut curl = self.home.run_agent(["curl", "-sS", "-H", "Authorization: Bearer AS_SECRET_API_KEY"]);
        run(curl.args(more).arg(url))
    }

    /// Status and JSON of a rejected request.
    #[track_caller]
    pub(crate) fn rejected(&self, more: &[&str], url: &str) -> (String, serde_json::Value) {
        let arguments: Vec<&str> = ["-w", "\n%{http_code}"].into_iter().chain(more.iter().copied()).collect();
        let outcome = self.curl_at(&arguments, url);
        let text = outcome.stdout.trim().to_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or_else(|| panic!("no answer: {outcome:#?}"));
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {outcome:#?}"));
        (code.to_owned(), body)
    }
}

pub(crate) fn loopbacks() -> [IpAddr; 2] {
    [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()]
}

/// An agent that prints a line and waits; dropping it ends it.
pub(crate) struct WaitingAgent {
    pub(crate) child: std::process::Child,
}

impl WaitingAgent {
    pub(crate) fn start(home: &Home) -> Self {
        Self::start_command(home.run_agent(["sh", "-c", "echo ready; read line"]))
    }

    /// Starts `command`, whose agent prints a line when it is ready.
    pub(crate) fn start_command(mut command: std::process::Command) -> Self {
        use std::io::BufRead;
        use std::process::Stdio;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the agent did not start");
        Self { child }
    }

    /// The pid of its interceptor.
    pub(crate) fn interceptor(&self) -> u32 {
        let name = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let tree = crate::support::value_search::process_tree(self.child.id());
        let found =
            tree.into_iter().find(|pid| name(*pid).windows(11).any(|window| window == b"interceptor"));
        found.expect("an interceptor runs")
    }
}

impl Drop for WaitingAgent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
