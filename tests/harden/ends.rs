//! However we end or lose what we need, nothing of the agent's gets past, and no secret is spent.

use nix::sys::signal::Signal;

use super::*;
use crate::support::process::{command, finish, finish_with};

/// Sets limits of a running process.
fn limit(pid: u32, limits: &[&str]) {
    finish(command("prlimit").args(["--pid", &pid.to_string()]).args(limits)).ok();
}

#[test]
fn a_crashed_interceptor_leaves_the_agent_offline() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    asking.signal(Signal::SIGABRT);
    asking.until("000");
    let before = world.api.received().len();
    assert_eq!(asking.ask(), "000");
    assert_eq!(world.api.received().len(), before);
}

#[test]
fn an_interceptor_that_stands_still_holds_everything_and_goes_on() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    asking.signal(Signal::SIGSTOP);
    assert_eq!(asking.ask(), "000");
    assert_eq!(world.api.received().len(), 1);
    asking.signal(Signal::SIGCONT);
    asking.until("200");
}

#[test]
fn without_descriptors_nothing_passes_until_there_are_some() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    let interceptor = asking.interceptor();
    let before = world.api.received().len();
    limit(interceptor, &["--nofile=3:4096"]);
    assert_eq!(asking.ask(), "000");
    assert_eq!(world.api.received().len(), before);
    limit(interceptor, &["--nofile=4096:4096"]);
    asking.until("200");
}

#[test]
fn without_memory_what_is_answered_is_answered_right_and_the_rest_is_offline() {
    let world = World::new();
    let ask = format!(
        "curl -sS -m 5 -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $API_KEY\" {}",
        world.url("/stream?n=3000000")
    );
    let script = format!("echo ready; read line; for i in $(seq 40); do {ask} 2>/dev/null & done; wait");
    let mut agent = Agent::started(world.home.run_agent(["bash", "-c", &script]));
    limit(agent.interceptor(), &["--as=1"]);
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(said.lines().count(), 40);
    let fine = |line: &str| matches!(line, "000" | "200" | "403") || line.starts_with('5');
    assert!(said.lines().all(fine), "{said}");
    let right = format!("Bearer {}", crate::spine::SECRET);
    assert!(world.api.received().iter().all(|received| received.header("authorization") == right));
}

#[test]
fn without_a_witness_nobody_can_be_proven() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    let [witness] = children(asking.interceptor())[..] else { panic!("one witness") };
    kill(Pid::from_raw(witness.cast_signed()), Signal::SIGKILL).unwrap();
    asking.until("403");
    assert!(world.home.audit().last().unwrap()["reason"].as_str().unwrap().contains("capability_denied"));
}

#[test]
fn without_a_place_for_records_no_secret_is_spent() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    std::fs::rename(world.home.path().join("audit"), world.home.path().join("away")).unwrap();
    asking.until("503");
    let before = world.api.received().len();
    assert_eq!(asking.ask(), "503");
    assert_eq!(world.api.received().len(), before);
}

#[test]
fn a_policy_that_is_removed_takes_every_permission_with_it() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    std::fs::remove_file(world.home.path().join("policy.yaml")).unwrap();
    asking.until("403");
    world.rule("secrets: [API_KEY]");
    asking.until("200");
}

#[test]
fn a_vault_that_is_removed_damaged_or_another_spends_nothing() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    let vault = world.home.path().join("vault");
    let whole = std::fs::read(&vault).unwrap();
    std::fs::remove_file(&vault).unwrap();
    asking.until("503");
    std::fs::write(&vault, &whole).unwrap();
    asking.until("200");

    // One that another key opens.
    let other = World::new();
    std::fs::write(other.home.key(), "quite another key file of thirty-two bytes\n").unwrap();
    std::fs::remove_file(other.home.path().join("vault")).unwrap();
    other.home.secret("API_KEY", "another-value-entirely");
    std::fs::copy(other.home.path().join("vault"), &vault).unwrap();
    asking.until("503");
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    std::fs::write(&vault, &torn).unwrap();
    assert_eq!(asking.ask(), "503");
    let right = format!("Bearer {}", crate::spine::SECRET);
    assert!(world.api.received().iter().all(|received| received.header("authorization") == right));
}

#[test]
fn a_vault_that_is_made_while_the_agent_runs_is_used() {
    let world = World::new();
    std::fs::remove_file(world.home.path().join("vault")).unwrap();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "502");
    assert!(world.api.received().is_empty());
    finish_with(&mut world.home.agentsecrets(["secrets", "set", "API_KEY"]), crate::spine::SECRET.as_bytes())
        .ok();
    asking.until("200");
    assert_eq!(world.api.received()[0].header("authorization"), format!("Bearer {}", crate::spine::SECRET));
}

#[test]
fn who_starts_without_a_vault_is_told_once() {
    let world = World::new();
    std::fs::remove_file(world.home.path().join("vault")).unwrap();
    let outcome = finish(&mut world.home.run_agent(["true"]));
    assert_eq!(outcome.stderr.matches("there is no vault yet").count(), 1, "{outcome:?}");
    world.rule("");
    let outcome = finish(&mut world.home.run_agent(["true"]));
    assert!(!outcome.stderr.contains("vault"), "no secret is named: {outcome:?}");
}

/// The clock is stepped for the interceptor alone, by a library that answers in the kernel's stead: a test
/// cannot step the machine's. The agent cannot read how far.
#[test]
fn a_clock_that_is_stepped_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    std::fs::write(&source, include_str!("clock.c")).unwrap();
    finish(command("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source])).ok();
    const YEARS: i64 = 20 * 365 * 86_400;
    for (seconds, answer) in [(0, "200"), (YEARS, "000"), (-YEARS, "000")] {
        let mut world = World::new();
        let step = world.home.path().join("step");
        std::fs::write(&step, "0").unwrap();
        world.home.variable("LD_PRELOAD", library.to_str().unwrap());
        world.home.variable("STEP", step.to_str().unwrap());
        let mut asking = Asking::start(&world);
        std::fs::write(&step, seconds.to_string()).unwrap();
        assert_eq!(asking.ask(), answer, "{seconds}");
        assert_eq!(world.api.received().is_empty(), answer == "000", "{seconds}");
        let year = |record: &serde_json::Value| record["timestamp"].as_str().unwrap()[..4].to_owned();
        let today = finish(command("date").arg("+%Y")).ok();
        // The record of a connection that came to nothing is written after its end.
        let records = || Some(world.home.audit()).filter(|records| !records.is_empty());
        let records = std::iter::repeat_with(records).take(50).flatten().next().unwrap();
        let stepped = records.iter().any(|record| year(record) != today.trim());
        assert_eq!(stepped, seconds != 0, "the clock did not step");
    }
}
