//! Many connections at once, complete and half-open.

use super::*;
use crate::support::process::{command, run, wait_until};

#[test]
fn thousand_connections_are_answered() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    let output = agent.request("get 1000 1000");
    assert_eq!(output["answered"], 1000, "{output}");
    assert_eq!(fixture.home.audit().iter().filter(|record| record["status"] == "OK").count(), 1000);
}

/// The beginning of a ClientHello, in hex.
const CLIENT_HELLO_START: &str = "16030100c8010000c40303";

/// Descriptors for 36 connections.
fn start_with_few_descriptors(fixture: &Fixture) -> DrivenAgent {
    let run = fixture.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "api.test"]);
    let mut limited = command("prlimit");
    limited.args(["--nofile=200:200"]).arg(run.get_program()).args(run.get_args());
    limited.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/tmp");
    DrivenAgent::start_command(fixture, limited)
}

/// The number of connections that were recorded as evicted.
fn evicted(fixture: &Fixture) -> usize {
    let audit = fixture.home.audit();
    audit.iter().filter(|record| record["reason"] == "too many connections at once: reset").count()
}

#[test]
fn half_open_connections_are_evicted() {
    let fixture = Fixture::new();
    let mut agent = start_with_few_descriptors(&fixture);
    for (round, words) in ["", CLIENT_HELLO_START].into_iter().enumerate() {
        // Connections reset during the handshake count too.
        agent.request(&format!("half 100 {words}"));
        // The kernel completes connections before we accept them. Those that we accept later may evict older ones.
        wait_until("the excess connections are evicted", || evicted(&fixture) >= (round + 1) * (100 - 36));
        let output = agent.request("get 10 1000");
        assert_eq!(output["answered"], 10, "{output}, {:?}", fixture.home.audit().last());
        agent.request("drop");
    }
}

#[test]
fn excess_connections_are_reset_and_recorded() {
    let fixture = Fixture::new();
    let mut agent = start_with_few_descriptors(&fixture);
    assert_eq!(agent.request("keep 30")["answered"], 30);
    let output = agent.request("keep 10");
    assert!(output["answered"].as_u64() <= Some(6), "{output}");
    agent.request("drop");
    // Slots are free again when the interceptor has seen the ends.
    let served = (0..100).any(|_| agent.request("get 1 1000")["answered"] == 1);
    assert!(served, "nothing is served after the crowd has gone");
}

#[test]
fn descriptor_exhaustion_is_recovered() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    agent.request("get 1 1000");
    let pid = agent.interceptor.to_string();
    let limit = |most: usize| {
        let mut limit = command("prlimit");
        run(limit.args(["--pid", &pid, &format!("--nofile={most}:")])).ok();
    };
    limit(std::fs::read_dir(format!("/proc/{}/fd", agent.interceptor)).unwrap().count().min(8));
    let ticks = agent.ticks();
    agent.send("get 20 1000");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = agent.ticks() - ticks;
    limit(1000);
    let output = agent.read_reply();
    assert_eq!(output["answered"], 20, "{output}");
    assert!(used < 50, "{used} ticks: the interceptor spins");
}

#[test]
#[ignore = "long: ten thousand connections"]
fn ten_thousand_half_open_connections_do_not_block() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    agent.request("get 1 1000");
    let before = agent.memory();
    for words in ["", CLIENT_HELLO_START] {
        let output = agent.request(&format!("half 10000 {words}"));
        assert_eq!(output["opened"], 10_000, "{output}");
        let (memory, ticks) = (agent.memory() - before, agent.ticks());
        let output = agent.request("get 20 1000");
        assert_eq!(output["answered"], 20, "{output}");
        assert!(memory < 200 << 20, "{memory} bytes more");
        std::thread::sleep(std::time::Duration::from_secs(1));
        let used = agent.ticks() - ticks;
        assert!(used < 100, "{used} ticks: the interceptor spins");
        agent.request("drop");
    }
    assert_eq!(agent.request("get 20 1000")["answered"], 20);
}
