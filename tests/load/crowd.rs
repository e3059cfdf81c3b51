//! Many connections at once, whole ones and such as never say what they want.

use super::*;
use crate::support::process::{command, finish};

#[test]
fn a_thousand_connections_at_once_are_all_answered() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    let said = agent.does("get 1000 1000");
    assert_eq!(said["answered"], 1000, "{said}");
    assert_eq!(world.home.audit().iter().filter(|record| record["status"] == "OK").count(), 1000);
}

/// The beginning of a ClientHello, in hex.
const HELLO: &str = "16030100c8010000c40303";

/// Room for 36 connections.
fn cramped(world: &World) -> Driven {
    let run = world.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "api.test"]);
    let mut limited = command("prlimit");
    limited.args(["--nofile=200:200"]).arg(run.get_program()).args(run.get_args());
    limited.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/tmp");
    Driven::started(world, limited)
}

#[test]
fn half_open_connections_make_room_for_those_that_speak() {
    let world = World::new();
    let mut agent = cramped(&world);
    for words in ["", HELLO] {
        // Those that are reset already while they are opened count too.
        agent.does(&format!("half 100 {words}"));
        let said = agent.does("get 10 1000");
        assert_eq!(said["answered"], 10, "{said}");
        agent.does("drop");
    }
    let audit = world.home.audit();
    let crowded = audit.iter().filter(|record| record["reason"] == "too many connections at once: reset");
    assert!(crowded.clone().count() >= 100, "{}", crowded.count());
}

#[test]
fn connections_beyond_the_room_are_reset_and_recorded() {
    let world = World::new();
    let mut agent = cramped(&world);
    assert_eq!(agent.does("keep 30")["answered"], 30);
    let said = agent.does("keep 10");
    assert!(said["answered"].as_u64() <= Some(6), "{said}");
    agent.does("drop");
    // Places are free again when the interceptor has seen the ends.
    let served = (0..100).any(|_| agent.does("get 1 1000")["answered"] == 1);
    assert!(served, "nothing is served after the crowd has gone");
}

#[test]
fn an_interceptor_without_descriptors_waits_and_serves_when_it_has_some() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    agent.does("get 1 1000");
    let pid = agent.interceptor.to_string();
    let limit = |most: usize| {
        let mut limit = command("prlimit");
        finish(limit.args(["--pid", &pid, &format!("--nofile={most}:")])).ok();
    };
    limit(std::fs::read_dir(format!("/proc/{}/fd", agent.interceptor)).unwrap().count().min(8));
    let ticks = agent.ticks();
    agent.tell("get 20 1000");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = agent.ticks() - ticks;
    limit(1000);
    let said = agent.said();
    assert_eq!(said["answered"], 20, "{said}");
    assert!(used < 50, "{used} ticks: the interceptor spins");
}

#[test]
#[ignore = "long: ten thousand connections"]
fn ten_thousand_half_open_connections_keep_nobody_from_being_served() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    agent.does("get 1 1000");
    let before = agent.memory();
    for words in ["", HELLO] {
        let said = agent.does(&format!("half 10000 {words}"));
        assert_eq!(said["opened"], 10_000, "{said}");
        let (memory, ticks) = (agent.memory() - before, agent.ticks());
        let said = agent.does("get 20 1000");
        assert_eq!(said["answered"], 20, "{said}");
        assert!(memory < 200 << 20, "{memory} bytes more");
        std::thread::sleep(std::time::Duration::from_secs(1));
        let used = agent.ticks() - ticks;
        assert!(used < 100, "{used} ticks: the interceptor spins");
        agent.does("drop");
    }
    assert_eq!(agent.does("get 20 1000")["answered"], 20);
}
