//! Export of the audit log: OpenTelemetry, Prometheus, JSON lines.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{command, run, wait_until};
use crate::support::python::{PYTHON, Server, with_program};

/// A fixture with one accepted and one rejected request of an agent, and a collector.
fn fixture() -> (Fixture, Server) {
    let mut fixture = Fixture::new();
    let collector = Server::start("audit_export/programs/collector.py", &fixture.authority, "collector.test");
    fixture.home.add_host("collector.test", [127, 0, 0, 1]);
    fixture.curl(&[], "/echo").ok();
    fixture.rejected(&["-X", "DELETE"], "https://elsewhere.test/");
    (fixture, collector)
}

/// `audit stream` to the collector, with a saved position.
fn stream(fixture: &Fixture, collector: &Server, more: &[&str]) -> Command {
    let url = format!("https://collector.test:{}", collector.port());
    let mut stream = fixture.home.agentsecrets(["audit", "stream", "--to", &url, "--position"]);
    stream.arg(position(fixture)).args(more);
    stream.env("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=k%20y");
    stream.env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=coder-0,service.name=agents");
    stream
}

fn position(fixture: &Fixture) -> PathBuf {
    fixture.home.path().join("stream.json")
}

/// The records that the collector has received.
fn collected(collector: &Server) -> Value {
    let url = format!("https://127.0.0.1:{}/received", collector.port());
    run(command("curl").args(["-sS", "-k", &url])).json()
}

fn records(collector: &Server) -> Vec<Value> {
    collected(collector)["received"].as_array().unwrap().clone()
}

/// A running stream; dropping it ends it.
struct StreamProcess(Child);

impl StreamProcess {
    fn start(stream: &mut Command) -> Self {
        Self(stream.spawn().unwrap())
    }

    /// Sends SIGTERM and waits.
    #[track_caller]
    fn stop(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for StreamProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn late_collector_gets_each_record_once() {
    let (fixture, collector) = fixture();
    let mut first = stream(&fixture, &collector, &["--metrics", "127.0.0.1:0"]);
    let mut first = StreamProcess::start(first.stderr(Stdio::piped()));
    let mut output = BufReader::new(first.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let metrics = output.find_map(|line| line.strip_prefix("metrics are at ").map(str::to_owned)).unwrap();
    wait_until("all of it is there", || records(&collector).len() == 4);
    assert_eq!(collected(&collector)["answered"], json!([503, 200]));

    let all = records(&collector);
    let outcomes: Vec<_> = all.iter().map(|record| &record["agentsecrets.outcome"]).collect();
    assert_eq!(outcomes, ["OK", "INTENT", "OK", "BLOCKED"]);
    // The operator's acts are exported too.
    assert_eq!(all[0]["agentsecrets.rule"], "administrative");
    assert_eq!(all[1]["log.record.uid"], all[2]["log.record.uid"]);
    let (served, refused) = (&all[2], &all[3]);
    assert_eq!(served["body"], format!("OK GET {}", fixture.url("/echo")));
    assert_eq!(served["http.response.status_code"], 200);
    assert_eq!(served["agentsecrets.secrets"], json!(["API_KEY"]));
    assert_eq!(served["process.executable.path"], "/usr/bin/curl");
    assert_eq!((&served["event"], &served["severity"]), (&json!("agentsecrets.audit"), &json!(9)));
    assert_eq!(
        refused["agentsecrets.reason"].as_str().unwrap().split(':').next(),
        Some("domain_not_in_allowlist")
    );
    assert_eq!((&refused["server.address"], &refused["severity"]), (&json!("elsewhere.test"), &json!(13)));
    assert_eq!((&refused["key"], &refused["resource"]["service.name"]), (&json!("k y"), &json!("agents")));
    assert_eq!(refused["resource"]["k8s.pod.name"], "coder-0");
    let audit = fixture.home.audit();
    let time = audit[1]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(refused["time"].as_i64().map(i128::from), Some(time.as_nanosecond()));
    assert!(!collected(&collector).to_string().contains(SECRET));

    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-clients/stream");
    let mut python = command(PYTHON);
    python.env("PYTHONPATH", packages);
    let counted = run(&mut with_program(python, "audit_export/programs/scrape.py", &[&metrics])).json();
    for (sample, value) in [
        ("agentsecrets_requests_total{agent=coder,outcome=OK,reason=}", 1.0),
        ("agentsecrets_requests_total{agent=coder,outcome=BLOCKED,reason=domain_not_in_allowlist}", 1.0),
        ("agentsecrets_secret_uses_total{agent=coder,secret=API_KEY}", 1.0),
        ("agentsecrets_redacted_answers_total{agent=coder}", 1.0),
        ("agentsecrets_request_duration_seconds_count{agent=coder}", 2.0),
        ("agentsecrets_administrative_acts_total{outcome=OK}", 1.0),
    ] {
        assert_eq!(counted[sample], value, "{sample} of {counted:#}");
    }

    // The next stream continues at the saved position.
    first.stop();
    fixture.curl(&[], "/echo?again=1").ok();
    let second = StreamProcess::start(&mut stream(&fixture, &collector, &[]));
    wait_until("what is new is there", || records(&collector).len() == 6);
    assert_eq!(records(&collector)[5]["url.full"], fixture.url("/echo?again="));
    second.stop();
}

#[test]
fn rejected_record_stops_stream_at_position() {
    let (fixture, collector) = fixture();
    let url = format!("https://collector.test:{}/elsewhere", collector.port());
    let mut stream = fixture.home.agentsecrets(["audit", "stream", "--to", &url, "--position"]);
    let refused = run(stream.arg(position(&fixture)));
    assert!(refused.code == Some(1) && refused.stderr.contains("status 400"), "{refused:?}");
    let saved: Value = serde_json::from_slice(&std::fs::read(position(&fixture)).unwrap()).unwrap();
    assert_eq!(saved["offset"], 0);
    for url in ["collector:4318", "ftp://collector", "https://key:word@collector", "https://collector/?key=x"]
    {
        let refused = run(&mut fixture.home.agentsecrets(["audit", "stream", "--to", url]));
        assert!(refused.code == Some(2) && !refused.stderr.contains("key:word"), "{url}: {refused:?}");
    }
}

#[test]
fn line_stream_is_denied_to_agent() {
    let (fixture, _collector) = fixture();
    let mut stream = fixture.home.agentsecrets(["audit", "stream"]);
    let mut stream = StreamProcess::start(stream.stdout(Stdio::piped()));
    let mut lines = BufReader::new(stream.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let statuses = [next(), next(), next(), next()].map(|record| record["status"].clone());
    assert_eq!(
        statuses,
        ["OK", "INTENT", "OK", "BLOCKED"],
        "what the person did, and the agent's two requests"
    );
    fixture.curl(&[], "/echo?new=1").ok();
    let new = [next(), next()].map(|record| record["target_url"].clone());
    assert_eq!(new, [fixture.url("/echo?new="), fixture.url("/echo?new=")]);
    stream.stop();
    let copy = crate::operator_commands::AgentExecutable::new();
    let outcome = run(&mut fixture.home.run_agent([copy.path(), "audit", "stream"]));
    assert!(outcome.code == Some(4) && outcome.stdout.is_empty(), "{outcome:?}");
}
