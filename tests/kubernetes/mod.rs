//! A cluster's view: the chart as Helm renders it, the webhook as the API server calls it.

mod admission;
mod certificates;
mod chart;
mod driver;
mod node;
mod pod;
mod webhook;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::containers::file;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, finish};

use driver::Driver;

/// As whom the chart has what handles agents' traffic serve.
const SERVES: u32 = 64646;

/// Helm's engine, asked what `words` say of the chart.
fn helm(words: &[&str]) -> Outcome {
    let mut python = command("/usr/bin/python3");
    python.env("PYTHONPATH", file("target/test-clients/kubernetes"));
    finish(python.arg(file("tests/kubernetes/chart.py")).arg(file("helm/agentsecrets")).args(words))
}

/// The manifests of a file of values.
fn rendered(values: &Path) -> Vec<serde_json::Value> {
    let text = helm(&["render", values.to_str().unwrap()]).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A running webhook; dropping it ends it.
struct Webhook {
    child: Child,
    port: u16,
}

impl Webhook {
    /// Starts one with `arguments`, on any port.
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
        // What it says later must not stop it.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, port }
    }

    /// Asks it as the API server would, which trusts `authority` alone: the status, then the body.
    fn ask(&self, authority: &Path, path: &str, more: &[&str]) -> (u16, String) {
        let mut curl = command("curl");
        curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "--cacert"]).arg(authority);
        curl.args(["--resolve", &format!("{NAME}:{}:127.0.0.1", self.port)]).args(more);
        let outcome = finish(curl.arg(format!("https://{NAME}:{}{path}", self.port)));
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or_default(), format!("{body}{}", outcome.stderr))
    }
}

/// The name by which the API server calls the webhook.
const NAME: &str = "demo-agentsecrets-injector.agents.svc";

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
