//! Kubernetes: the chart as Helm renders it, the webhook as the API server calls it, and pods as a kubelet
//! starts them.

mod admission;
mod certificates;
mod cgroup_driver;
mod chart;
mod node;
mod pod;
mod webhook;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::containers::workspace_file;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, run};

use cgroup_driver::Driver;

/// The chart's uid for processes that handle agents' traffic.
const SERVICE_UID: u32 = 64646;

/// Runs Helm's engine on the chart.
fn helm(words: &[&str]) -> Outcome {
    let mut python = command("/usr/bin/python3");
    python.env("PYTHONPATH", workspace_file("target/test-clients/kubernetes"));
    run(python
        .arg(workspace_file("tests/kubernetes/chart.py"))
        .arg(workspace_file("helm/agentsecrets"))
        .args(words))
}

/// The manifests for a values file.
fn render(values: &Path) -> Vec<serde_json::Value> {
    helm(&["render", values.to_str().unwrap()]).json_lines()
}

/// A running webhook; dropping it ends it.
struct Webhook {
    child: Child,
    port: u16,
}

impl Webhook {
    /// Starts a webhook on any port; `configure` adds arguments.
    fn start(configure: impl FnOnce(&mut Command)) -> Self {
        let mut webhook = command(AGENTSECRETS);
        webhook.args(["kubernetes", "webhook", "--listen", "127.0.0.1:0"]);
        configure(&mut webhook);
        let mut child = webhook.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
        let port = line.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the webhook did not start: {line}"));
        // Later output must not block it.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, port }
    }

    /// Posts as the API server would, trusting `authority` only; returns status and body.
    fn post(&self, authority: &Path, path: &str, more: &[&str]) -> (u16, String) {
        let mut curl = command("curl");
        curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "--cacert"]).arg(authority);
        curl.args(["--resolve", &format!("{SERVER_NAME}:{}:127.0.0.1", self.port)]).args(more);
        let outcome = run(curl.arg(format!("https://{SERVER_NAME}:{}{path}", self.port)));
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or_default(), format!("{body}{}", outcome.stderr))
    }
}

/// The webhook's name for the API server.
const SERVER_NAME: &str = "demo-agentsecrets-injector.agents.svc";

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
