//! Killed, restarted or upgraded in any order: an agent is served or offline, never unguarded.

use super::egress::EgressProbe;
use super::testbed::Container;
use super::{Engine, testbed};

#[test]
fn agent_is_offline_while_service_is_dead() {
    let engine = Engine::new();
    let (service, agent) = (engine.start_service(), engine.start_agent());
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    let (before, pins) = (engine.api.received().len(), engine.pins());
    service.kill();
    let offline = agent.curl(&[], &engine.url("/echo"));
    assert_eq!(offline.code, Some(7), "{offline:?}");
    let direct = format!("http://{}:{}/", engine.netns.local4(), engine.api.port());
    assert_ne!(agent.curl(&[], &direct).code, Some(0));
    assert_eq!(engine.api.received().len(), before);

    // The pinned hooks are reused for the new container's cgroup.
    let service = engine.start_service();
    assert_eq!(engine.pins(), pins, "{}", service.errors());
    // The CA is new; the agent's next program reads it.
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    assert_eq!(service.stop(), Some(0));
    assert_eq!(agent.curl(&[], &engine.url("/echo")).code, Some(7));
    assert_eq!(engine.pins(), pins);
}

#[test]
fn agent_started_before_service_is_blocked_then_served() {
    let engine = Engine::new();
    engine.start_service().kill();
    let agent = engine.start_agent();
    assert_eq!(agent.curl(&[], &engine.url("/echo")).code, Some(7));
    assert!(engine.packets_to(engine.netns.local4().into()).is_empty(), "not even a connection was begun");
    let service = engine.start_service();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    assert_eq!(service.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
}

#[test]
fn restarted_agent_is_blocked_and_identified_again() {
    let engine = Engine::new();
    let service = engine.start_service();
    assert_identified_anew(&service, || engine.start_agent(), &engine.url("/echo"));
}

/// Hooks of another version stay in force until the new ones are attached.
#[test]
fn upgrade_keeps_hooks_in_force() {
    let engine = Engine::new();
    let service = engine.start_service();
    let agent = engine.start_agent();
    let trying = EgressProbe::start(&engine, &agent);
    let mut running = Some(service);
    for turn in 0..5 {
        let [pins] = engine.pins().try_into().unwrap();
        drop(running.take());
        testbed::mark_as_other_version(&pins);
        running = Some(engine.start_service());
        let [now] = engine.pins().try_into().unwrap();
        assert!(now.file_name().unwrap().to_str().unwrap().starts_with(&format!("{}-", turn + 1)), "{now:?}");
        assert_eq!(agent.status(&engine.url("/echo")), "200");
    }
    trying.assert_nothing_left(&engine);
}

/// Pins for a removed cgroup are useless once it is created again.
#[test]
fn recreated_slice_gets_new_hooks() {
    let engine = Engine::new();
    engine.start_service().kill();
    let before = engine.pins();
    std::fs::remove_dir(engine.slice()).unwrap();
    let service = engine.start_service();
    assert_ne!(engine.pins(), before);
    assert_eq!(engine.pins().len(), 1);
    let agent = engine.start_agent();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    drop(service);
}

/// Any service that starts removes the pins of a slice that no longer exists.
#[test]
fn next_service_removes_pins_of_missing_slice() {
    let (gone, engine) = (Engine::new(), Engine::new());
    gone.start_service().kill();
    assert_eq!(gone.pins().len(), 1);
    std::fs::remove_dir(gone.slice()).unwrap();
    let _service = engine.start_service();
    assert_eq!((gone.pins().len(), engine.pins().len()), (0, 1));
}

/// An orchestrator starts the new service before the old one ends: the newer one serves.
#[test]
fn second_service_takes_over() {
    let engine = Engine::new();
    let (first, agent) = (engine.start_service(), engine.start_agent());
    let second = engine.start_service();
    assert_eq!(engine.pins().len(), 1);
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    first.kill();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    second.wait_until_healthy();
}

/// Starts an agent repeatedly; each instance has its own cgroup and id and is served.
#[track_caller]
pub(crate) fn assert_identified_anew<'a>(
    service: &Container<'_>,
    start: impl Fn() -> Container<'a>,
    url: &str,
) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let agent = start();
        assert_eq!(agent.status(url), "200");
        seen.push((agent.id.clone(), agent.cgroup()));
        agent.finish();
    }
    let known: Vec<_> = service.audit().iter().map(|record| record["process"]["container"].clone()).collect();
    assert_eq!(known, seen.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    seen.dedup_by_key(|(_, cgroup)| *cgroup);
    assert_eq!(seen.len(), 3, "each has a cgroup of its own");
}
