//! Runs agents of many kinds at once, and samples the resources of the interceptor and its launcher. Growth after the
//! warm-up is a failure, and so are resources that are still in use when the agents are silent.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{ResourceUsage, descendant, resource_usage};
use super::report::Report;
use crate::demo::api::Api;
use crate::demo::test_home::TestHome;
use crate::digest::random_hex;

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.demo, secrets: [API_KEY], private: true }
";

/// Connections with one request and with many, HTTP/1.1 and HTTP/2, uploads, downloads, responses to redact, denied
/// requests and names, clients that close early, and executables with a new hash.
const AGENT: &str = r#"
exec 2>/dev/null
key="Authorization: Bearer $API_KEY"; url=https://api.demo/v1
short() { while :; do curl -s -H "$key" $url/me; curl -s --http1.1 -H "$key" $url/me; done; }
long() { while :; do curl -s $1 -H "$key" "$url/me?n=[1-300]"; done; }
up() { while :; do head -c 3000000 /dev/zero | curl -s -H "$key" -T - -X POST $url/up; done; }
down() { while :; do curl -s -H "$key" "$url/large?n=[1-20]"; done; }
refused() { while :; do curl -s -H "$key" https://elsewhere.demo/; curl -s http://api.demo/ -H "$key"; getent hosts n$((RANDOM % 500)).invalid.test; sleep 0.1; done; }
hang_up() { while :; do curl -s -m 0.0$((RANDOM % 9 + 1)) -H "$key" $url/large; curl -s -m 0.2 --limit-rate 10k -H "$key" $url/large; done; }
other() { while :; do cp /usr/bin/curl $HOME/curl-$1; echo $RANDOM >> $HOME/curl-$1; $HOME/curl-$1 -s -H "$key" $url/me; sleep 2; done; }
for work in short 'long --http2' 'long --http1.1' up down refused hang_up 'other 1'; do $work >/dev/null & done
read line
kill $(jobs -p); wait
read line
"#;

/// The number of samples.
const SAMPLES: u32 = 120;
/// Time for the release of resources after the agents are silent.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Allowed growth from the second quarter to the last, besides a tenth: noise of the allocator, in KiB.
const MEMORY_NOISE: u64 = 4 << 10;
/// The same for descriptors: noise of the moment of counting.
const DESCRIPTOR_NOISE: u64 = 24;
/// The same for map entries.
const FLOW_NOISE: u64 = 16;
/// Descriptors that may be left: pooled upstream connections.
const POOLED: u64 = 16;

/// Runs the load for `time`.
pub(super) fn run(time: Duration, report: &mut Report) -> Result<()> {
    let home = TestHome::new()?;
    home.policy(POLICY)?;
    let secret = format!("sk_soak_{}", random_hex::<12>()?);
    home.agentsecrets(&["secrets", "set", "API_KEY"], &secret)?.expect("secrets set")?;
    let names = ["api.demo", "elsewhere.demo"];
    let api = Api::start(&names)?;
    home.set_upstream(&names, api.address(), api.authority())?;

    let mut command = home.agent(&["bash", "-c", AGENT]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut agent = Agent(child.context("cannot start the agents")?);
    let launcher = agent.0.id();
    let interceptor = wait_for_interceptor(&mut agent.0)?;
    let fresh = resource_usage(interceptor)?;
    report.line(&format!("load: {} minutes; samples of interceptor | launcher", time.as_secs() / 60))?;

    let started = Instant::now();
    let mut samples = Vec::new();
    for number in 1..=SAMPLES {
        let at = time * number / SAMPLES;
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        let sample = (resource_usage(interceptor)?, resource_usage(launcher)?);
        if number % (SAMPLES / 20) == 0 {
            report.line(&format!(
                "load {:>5} s: {} | {} after {} requests",
                started.elapsed().as_secs(),
                shown(&sample.0),
                shown(&sample.1),
                api.requests()
            ))?;
        }
        samples.push(sample);
    }
    agent.send("stop")?;
    std::thread::sleep(SETTLE_TIME);
    let silent = resource_usage(interceptor)?;
    report.line(&format!("load: silent for {} s: {}", SETTLE_TIME.as_secs(), shown(&silent)))?;
    agent.send("end")?;
    agent.0.wait()?;

    let mut found = growth("interceptor", samples.iter().map(|(usage, _)| *usage));
    found.extend(growth("launcher", samples.iter().map(|(_, usage)| *usage)));
    if silent.flows > 0 {
        found.push(format!("{} connections are left in the map", silent.flows));
    }
    if silent.descriptors > fresh.descriptors + POOLED {
        found.push(format!(
            "descriptors: {} when fresh, {} at the end",
            fresh.descriptors, silent.descriptors
        ));
    }
    if api.requests() < samples.len() * 10 {
        found.push(format!("the load was too small: {} requests", api.requests()));
    }
    if api.received().iter().any(|credential| *credential != secret && !credential.is_empty()) {
        found.push("a request arrived with a credential that is not the secret".into());
    }
    for line in &found {
        report.line(&format!("load FAILED: {line}"))?;
    }
    if !found.is_empty() {
        bail!("{}", found.join("; "));
    }
    report.line(&format!("load: {} requests, no growth", api.requests()))
}

/// The agents; they end when this is dropped.
struct Agent(Child);

impl Agent {
    fn send(&mut self, word: &str) -> Result<()> {
        let stdin = self.0.stdin.as_mut().context("the agents have no input")?;
        writeln!(stdin, "{word}").context("the agents are gone")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn wait_for_interceptor(child: &mut Child) -> Result<u32> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if let Some(status) = child.try_wait()? {
            bail!("`agentsecrets run` ended ({status})");
        }
        if let Some(pid) = descendant(child.id(), "interceptor") {
            // Its runtime starts now; before that it uses little.
            std::thread::sleep(Duration::from_secs(1));
            return Ok(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no interceptor was started")
}

fn shown(usage: &ResourceUsage) -> String {
    format!("{:>6} KiB {:>4} descriptors {:>3} flows", usage.memory, usage.descriptors, usage.flows)
}

/// Selects one resource.
type Count = fn(&ResourceUsage) -> u64;

/// The resources that grew from the second quarter, after the warm-up, to the last.
fn growth(who: &str, samples: impl Iterator<Item = ResourceUsage>) -> Vec<String> {
    let samples: Vec<ResourceUsage> = samples.collect();
    let quarter = samples.len() / 4;
    let kinds: [(&str, Count, u64); 3] = [
        ("KiB of memory", |usage| usage.memory, MEMORY_NOISE),
        ("descriptors", |usage| usage.descriptors, DESCRIPTOR_NOISE),
        ("map entries", |usage| usage.flows, FLOW_NOISE),
    ];
    let mut found = Vec::new();
    for (kind, count, noise) in kinds {
        let early = median(samples.iter().skip(quarter).take(quarter).map(count));
        let late = median(samples.iter().rev().take(quarter).map(count));
        if late > early + early / 10 + noise {
            found.push(format!("the {who} grows: {early} {kind} in the second quarter, {late} in the last"));
        }
    }
    found
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(memory: impl Fn(u64) -> u64) -> Vec<String> {
        growth(
            "x",
            (0..120).map(|n| ResourceUsage { memory: memory(n), descriptors: 20 + n % 7, flows: n % 3 }),
        )
    }

    #[test]
    fn growth_is_found_and_warm_up_and_noise_are_not() {
        assert!(holding(|n| 20_000 + n.min(30) * 500 + n % 13 * 100).is_empty());
        assert_eq!(holding(|n| 20_000 + n * 150).len(), 1);
    }
}
