//! Failure of any of our processes or files: nothing of the agent gets past, and no secret is used.

use nix::sys::signal::Signal;

use super::*;
use crate::support::process::{command, run, run_with_input};

/// Sets limits of a running process.
fn set_limits(pid: u32, limits: &[&str]) {
    run(command("prlimit").args(["--pid", &pid.to_string()]).args(limits)).ok();
}

#[test]
fn crashed_interceptor_leaves_agent_offline() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    asking.signal(Signal::SIGABRT);
    asking.wait_for_status("000");
    let before = fixture.api.received().len();
    assert_eq!(asking.request(), "000");
    assert_eq!(fixture.api.received().len(), before);
}

#[test]
fn stopped_interceptor_blocks_then_resumes() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    asking.signal(Signal::SIGSTOP);
    assert_eq!(asking.request(), "000");
    assert_eq!(fixture.api.received().len(), 1);
    asking.signal(Signal::SIGCONT);
    asking.wait_for_status("200");
}

#[test]
fn descriptor_exhaustion_blocks_requests() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    let interceptor = asking.interceptor();
    let before = fixture.api.received().len();
    set_limits(interceptor, &["--nofile=3:4096"]);
    assert_eq!(asking.request(), "000");
    assert_eq!(fixture.api.received().len(), before);
    set_limits(interceptor, &["--nofile=4096:4096"]);
    asking.wait_for_status("200");
}

#[test]
fn memory_limit_leaves_agent_offline() {
    let fixture = Fixture::new();
    let ask = format!(
        "curl -sS -m 5 -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $API_KEY\" {}",
        fixture.url("/stream?n=3000000")
    );
    let script = format!("echo ready; read line; for i in $(seq 40); do {ask} 2>/dev/null & done; wait");
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    set_limits(agent.interceptor(), &["--as=1"]);
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut output = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut output).unwrap();
    assert_eq!(output.lines().count(), 40);
    let fine = |line: &str| matches!(line, "000" | "200" | "403") || line.starts_with('5');
    assert!(output.lines().all(fine), "{output}");
    let right = format!("Bearer {}", crate::end_to_end::SECRET);
    assert!(fixture.api.received().iter().all(|received| received.header("authorization") == right));
}

#[test]
fn dead_process_inspector_denies_callers() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    let [inspector] = children(asking.interceptor())[..] else { panic!("one process inspector") };
    kill(Pid::from_raw(inspector.cast_signed()), Signal::SIGKILL).unwrap();
    asking.wait_for_status("403");
    assert!(fixture.home.audit().last().unwrap()["reason"].as_str().unwrap().contains("capability_denied"));
}

#[test]
fn unwritable_audit_log_denies_secrets() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    std::fs::rename(fixture.home.path().join("audit"), fixture.home.path().join("away")).unwrap();
    asking.wait_for_status("503");
    let before = fixture.api.received().len();
    assert_eq!(asking.request(), "503");
    assert_eq!(fixture.api.received().len(), before);
}

#[test]
fn removed_policy_denies_all() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    std::fs::remove_file(fixture.home.path().join("policy.yaml")).unwrap();
    asking.wait_for_status("403");
    fixture.rule("secrets: [API_KEY]");
    asking.wait_for_status("200");
}

#[test]
fn missing_or_damaged_vault_denies_secrets() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    let vault = fixture.home.path().join("vault");
    let whole = std::fs::read(&vault).unwrap();
    std::fs::remove_file(&vault).unwrap();
    asking.wait_for_status("503");
    std::fs::write(&vault, &whole).unwrap();
    asking.wait_for_status("200");

    // A vault with another key.
    let other = Fixture::new();
    std::fs::write(other.home.key(), "quite another key file of thirty-two bytes\n").unwrap();
    std::fs::remove_file(other.home.path().join("vault")).unwrap();
    other.home.set_secret("API_KEY", "another-value-entirely");
    std::fs::copy(other.home.path().join("vault"), &vault).unwrap();
    asking.wait_for_status("503");
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    std::fs::write(&vault, &torn).unwrap();
    assert_eq!(asking.request(), "503");
    let right = format!("Bearer {}", crate::end_to_end::SECRET);
    assert!(fixture.api.received().iter().all(|received| received.header("authorization") == right));
}

#[test]
fn vault_created_during_run_is_used() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.home.path().join("vault")).unwrap();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "502");
    assert!(fixture.api.received().is_empty());
    run_with_input(
        &mut fixture.home.agentsecrets(["secrets", "set", "API_KEY"]),
        crate::end_to_end::SECRET.as_bytes(),
    )
    .ok();
    asking.wait_for_status("200");
    assert_eq!(
        fixture.api.received()[0].header("authorization"),
        format!("Bearer {}", crate::end_to_end::SECRET)
    );
}

#[test]
fn missing_vault_is_reported_once() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.home.path().join("vault")).unwrap();
    let outcome = run(&mut fixture.home.run_agent(["true"]));
    assert_eq!(outcome.stderr.matches("there is no vault yet").count(), 1, "{outcome:?}");
    fixture.rule("");
    let outcome = run(&mut fixture.home.run_agent(["true"]));
    assert!(!outcome.stderr.contains("vault"), "no secret is named: {outcome:?}");
}

/// A preloaded library steps the clock of the interceptor alone, since a test cannot step the machine's. The
/// agent cannot read the offset.
#[test]
fn stepped_clock_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    std::fs::write(&source, include_str!("clock.c")).unwrap();
    run(command("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source])).ok();
    const YEARS: i64 = 20 * 365 * 86_400;
    for (seconds, answer) in [(0, "200"), (YEARS, "000"), (-YEARS, "000")] {
        let mut fixture = Fixture::new();
        let step = fixture.home.path().join("step");
        std::fs::write(&step, "0").unwrap();
        fixture.home.set_variable("LD_PRELOAD", library.to_str().unwrap());
        fixture.home.set_variable("STEP", step.to_str().unwrap());
        let mut asking = RequestingAgent::start(&fixture);
        std::fs::write(&step, seconds.to_string()).unwrap();
        assert_eq!(asking.request(), answer, "{seconds}");
        assert_eq!(fixture.api.received().is_empty(), answer == "000", "{seconds}");
        let year = |record: &serde_json::Value| record["timestamp"].as_str().unwrap()[..4].to_owned();
        let today = run(command("date").arg("+%Y")).ok();
        // A failed connection is recorded after its end.
        let records = || Some(fixture.home.audit()).filter(|records| !records.is_empty());
        let records = std::iter::repeat_with(records).take(50).flatten().next().unwrap();
        let stepped = records.iter().any(|record| year(record) != today.trim());
        assert_eq!(stepped, seconds != 0, "the clock did not step");
    }
}
