//! Agents of many kinds at once for as long as is asked, and what the interceptor and its launcher hold all
//! the while. Once they are warm, holding more and more is a failure; so is holding on when all is over.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Report;
use super::process::{Holds, descendant, holds};
use crate::demo::api::Api;
use crate::demo::stage::{Stage, random_hex};

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.demo, secrets: [API_KEY], private: true }
";

/// Connections of one request and of many, both versions, uploads and downloads, answers to redact,
/// refusals, names that nobody may ask for, clients that hang up, programs that were never seen before.
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

/// Samples taken in all.
const SAMPLES: u32 = 120;
/// How long everything may take to be let go once the agents are silent.
const SILENCE: Duration = Duration::from_secs(20);
/// How much more the last quarter may hold than the second, beside a tenth: noise of the allocator, and of
/// the moment at which connections are counted.
const MEMORY_NOISE: u64 = 4 << 10;
const DESCRIPTOR_NOISE: u64 = 24;
const FLOW_NOISE: u64 = 16;
/// How many descriptors may be left: connections to upstreams that may be used again.
const POOLED: u64 = 16;

/// Loads a run for `time`.
pub(super) fn run(time: Duration, report: &mut Report) -> Result<()> {
    let stage = Stage::new()?;
    stage.policy(POLICY)?;
    let secret = format!("sk_soak_{}", random_hex::<12>()?);
    stage.agentsecrets(&["secrets", "set", "API_KEY"], &secret)?.expect("secrets set")?;
    let names = ["api.demo", "elsewhere.demo"];
    let api = Api::start(&names)?;
    stage.world(&names, api.address(), api.authority())?;

    let mut command = stage.agent(&["bash", "-c", AGENT]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut agent = Agent(child.context("cannot start the agents")?);
    let launcher = agent.0.id();
    let interceptor = wait_for_interceptor(&mut agent.0)?;
    let fresh = holds(interceptor)?;
    report.say(&format!("load: {} minutes; samples of interceptor | launcher", time.as_secs() / 60))?;

    let started = Instant::now();
    let mut samples = Vec::new();
    for number in 1..=SAMPLES {
        let at = time * number / SAMPLES;
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        let sample = (holds(interceptor)?, holds(launcher)?);
        if number % (SAMPLES / 20) == 0 {
            report.say(&format!(
                "load {:>5} s: {} | {} after {} requests",
                started.elapsed().as_secs(),
                shown(&sample.0),
                shown(&sample.1),
                api.requests()
            ))?;
        }
        samples.push(sample);
    }
    agent.say("stop")?;
    std::thread::sleep(SILENCE);
    let silent = holds(interceptor)?;
    report.say(&format!("load: silent for {} s: {}", SILENCE.as_secs(), shown(&silent)))?;
    agent.say("end")?;
    agent.0.wait()?;

    let mut found = growth("interceptor", samples.iter().map(|(holds, _)| *holds));
    found.extend(growth("launcher", samples.iter().map(|(_, holds)| *holds)));
    if silent.flows > 0 {
        found.push(format!("{} connections were never taken from the map", silent.flows));
    }
    if silent.descriptors > fresh.descriptors + POOLED {
        found.push(format!(
            "descriptors: {} when fresh, {} at the end",
            fresh.descriptors, silent.descriptors
        ));
    }
    if api.requests() < samples.len() * 10 {
        found.push(format!("that was no load: {} requests", api.requests()));
    }
    if api.received().iter().any(|credential| *credential != secret && !credential.is_empty()) {
        found.push("a request arrived with what is not the secret".into());
    }
    for line in &found {
        report.say(&format!("load FAILED: {line}"))?;
    }
    if !found.is_empty() {
        bail!("{}", found.join("; "));
    }
    report.say(&format!("load: {} requests, no growth", api.requests()))
}

/// The agents; they end with us.
struct Agent(Child);

impl Agent {
    fn say(&mut self, word: &str) -> Result<()> {
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
            // It serves once its own runtime is there; what it holds before is little.
            std::thread::sleep(Duration::from_secs(1));
            return Ok(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no interceptor came to be")
}

fn shown(holds: &Holds) -> String {
    format!("{:>6} KiB {:>4} descriptors {:>3} flows", holds.memory, holds.descriptors, holds.flows)
}

/// One of the things that a process holds.
type Count = fn(&Holds) -> u64;

/// What the last quarter holds more of than the second, when everything was warm.
fn growth(who: &str, samples: impl Iterator<Item = Holds>) -> Vec<String> {
    let samples: Vec<Holds> = samples.collect();
    let quarter = samples.len() / 4;
    let kinds: [(&str, Count, u64); 3] = [
        ("KiB of memory", |holds| holds.memory, MEMORY_NOISE),
        ("descriptors", |holds| holds.descriptors, DESCRIPTOR_NOISE),
        ("map entries", |holds| holds.flows, FLOW_NOISE),
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
        growth("x", (0..120).map(|n| Holds { memory: memory(n), descriptors: 20 + n % 7, flows: n % 3 }))
    }

    #[test]
    fn growth_is_told_from_warming_up_and_noise() {
        assert!(holding(|n| 20_000 + n.min(30) * 500 + n % 13 * 100).is_empty());
        assert_eq!(holding(|n| 20_000 + n * 150).len(), 1);
    }
}
