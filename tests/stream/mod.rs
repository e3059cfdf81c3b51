//! The audit log on its way to those who collect it: OpenTelemetry, Prometheus, whoever reads lines.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::spine::{SECRET, World};
use crate::support::process::{command, finish, until};
use crate::support::python::{PYTHON, Server, with_program};

/// A world in which an agent was served once and refused once, and a collector.
fn world() -> (World, Server) {
    let mut world = World::new();
    let collector = Server::start("stream/programs/collector.py", &world.authority, "collector.test");
    world.home.host("collector.test", [127, 0, 0, 1]);
    world.curl(&[], "/echo").ok();
    world.refused(&["-X", "DELETE"], "https://elsewhere.test/");
    (world, collector)
}

/// `audit stream` to the collector, with its place kept.
fn stream(world: &World, collector: &Server, more: &[&str]) -> Command {
    let url = format!("https://collector.test:{}", collector.port());
    let mut stream = world.home.agentsecrets(["audit", "stream", "--to", &url, "--position"]);
    stream.arg(position(world)).args(more);
    stream.env("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=k%20y");
    stream.env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=coder-0,service.name=agents");
    stream
}

fn position(world: &World) -> PathBuf {
    world.home.path().join("stream.json")
}

/// What the collector has.
fn collected(collector: &Server) -> Value {
    let url = format!("https://127.0.0.1:{}/received", collector.port());
    finish(command("curl").args(["-sS", "-k", &url])).json()
}

fn records(collector: &Server) -> Vec<Value> {
    collected(collector)["received"].as_array().unwrap().clone()
}

/// A stream under way; dropping it breaks it off.
struct Running(Child);

impl Running {
    fn start(stream: &mut Command) -> Self {
        Self(stream.spawn().unwrap())
    }

    /// Asks it to end.
    #[track_caller]
    fn ends(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_collector_that_was_not_ready_gets_every_record_once_and_prometheus_the_counts() {
    let (world, collector) = world();
    let mut first = stream(&world, &collector, &["--metrics", "127.0.0.1:0"]);
    let mut first = Running::start(first.stderr(Stdio::piped()));
    let mut said = BufReader::new(first.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let metrics = said.find_map(|line| line.strip_prefix("metrics are at ").map(str::to_owned)).unwrap();
    until("all of it is there", || records(&collector).len() == 4);
    assert_eq!(collected(&collector)["answered"], json!([503, 200]));

    let all = records(&collector);
    let outcomes: Vec<_> = all.iter().map(|record| &record["agentsecrets.outcome"]).collect();
    assert_eq!(outcomes, ["OK", "INTENT", "OK", "BLOCKED"]);
    // What the person did comes too.
    assert_eq!(all[0]["agentsecrets.rule"], "administrative");
    assert_eq!(all[1]["log.record.uid"], all[2]["log.record.uid"]);
    let (served, refused) = (&all[2], &all[3]);
    assert_eq!(served["body"], format!("OK GET {}", world.url("/echo")));
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
    let audit = world.home.audit();
    let time = audit[1]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(refused["time"].as_i64().map(i128::from), Some(time.as_nanosecond()));
    assert!(!collected(&collector).to_string().contains(SECRET));

    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-clients/stream");
    let mut python = command(PYTHON);
    python.env("PYTHONPATH", packages);
    let counted = finish(&mut with_program(python, "stream/programs/scrape.py", &[&metrics])).json();
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

    // The next one goes on where this one came to.
    first.ends();
    world.curl(&[], "/echo?again=1").ok();
    let second = Running::start(&mut stream(&world, &collector, &[]));
    until("what is new is there", || records(&collector).len() == 6);
    assert_eq!(records(&collector)[5]["url.full"], world.url("/echo?again="));
    second.ends();
}

#[test]
fn what_a_collector_will_never_take_ends_the_stream_where_it_was() {
    let (world, collector) = world();
    let url = format!("https://collector.test:{}/elsewhere", collector.port());
    let mut stream = world.home.agentsecrets(["audit", "stream", "--to", &url, "--position"]);
    let refused = finish(stream.arg(position(&world)));
    assert!(refused.code == Some(1) && refused.stderr.contains("status 400"), "{refused:?}");
    let kept: Value = serde_json::from_slice(&std::fs::read(position(&world)).unwrap()).unwrap();
    assert_eq!(kept["offset"], 0);
    for url in ["collector:4318", "ftp://collector", "https://key:word@collector", "https://collector/?key=x"]
    {
        let refused = finish(&mut world.home.agentsecrets(["audit", "stream", "--to", url]));
        assert!(refused.code == Some(2) && !refused.stderr.contains("key:word"), "{url}: {refused:?}");
    }
}

#[test]
fn lines_are_for_whoever_reads_them_and_an_agent_reads_none() {
    let (world, _collector) = world();
    let mut stream = world.home.agentsecrets(["audit", "stream"]);
    let mut stream = Running::start(stream.stdout(Stdio::piped()));
    let mut lines = BufReader::new(stream.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let statuses = [next(), next(), next(), next()].map(|record| record["status"].clone());
    assert_eq!(
        statuses,
        ["OK", "INTENT", "OK", "BLOCKED"],
        "what the person did, and the agent's two requests"
    );
    world.curl(&[], "/echo?new=1").ok();
    let new = [next(), next()].map(|record| record["target_url"].clone());
    assert_eq!(new, [world.url("/echo?new="), world.url("/echo?new=")]);
    stream.ends();
    let copy = crate::person::AgentsCopy::new();
    let outcome = finish(&mut world.home.run_agent([copy.path(), "audit", "stream"]));
    assert!(outcome.code == Some(4) && outcome.stdout.is_empty(), "{outcome:?}");
}
