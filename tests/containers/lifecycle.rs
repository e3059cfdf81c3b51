//! Killed, restarted, upgraded, in whichever order: an agent is served or offline, never free.

use super::site::Container;
use super::trying::Trying;
use super::{Engine, site};

#[test]
fn when_the_service_is_killed_an_agent_is_offline_until_one_is_there_again() {
    let engine = Engine::new();
    let (service, agent) = (engine.service(), engine.agent());
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    let (before, pins) = (engine.api.received().len(), engine.pins());
    service.kill();
    let offline = agent.curl(&[], &engine.url("/echo"));
    assert_eq!(offline.code, Some(7), "{offline:?}");
    let direct = format!("http://{}:{}/", engine.netns.here4(), engine.api.port());
    assert_ne!(agent.curl(&[], &direct).code, Some(0));
    assert_eq!(engine.api.received().len(), before);

    // The hooks that are in force are taken up as they are, for the new container's cgroup.
    let service = engine.service();
    assert_eq!(engine.pins(), pins, "{}", service.errors());
    // Its authority is a new one, which this agent's next program reads.
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    assert_eq!(service.stop(), Some(0));
    assert_eq!(agent.curl(&[], &engine.url("/echo")).code, Some(7));
    assert_eq!(engine.pins(), pins);
}

#[test]
fn an_agent_that_is_there_before_the_service_is_held_and_then_served() {
    let engine = Engine::new();
    engine.service().kill();
    let agent = engine.agent();
    assert_eq!(agent.curl(&[], &engine.url("/echo")).code, Some(7));
    assert!(engine.left_for(engine.netns.here4().into()).is_empty(), "not even a connection was begun");
    let service = engine.service();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    assert_eq!(service.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
}

#[test]
fn an_agent_that_is_started_again_is_held_from_its_first_packet_and_known_anew() {
    let engine = Engine::new();
    let service = engine.service();
    known_anew(&service, || engine.agent(), &engine.url("/echo"));
}

/// Hooks of another version stay in force until the new ones are.
#[test]
fn an_upgrade_leaves_no_moment_without_hooks() {
    let engine = Engine::new();
    let service = engine.service();
    let agent = engine.agent();
    let trying = Trying::start(&engine, &agent);
    let mut running = Some(service);
    for turn in 0..5 {
        let [pins] = engine.pins().try_into().unwrap();
        drop(running.take());
        site::of_another_version(&pins);
        running = Some(engine.service());
        let [now] = engine.pins().try_into().unwrap();
        assert!(now.file_name().unwrap().to_str().unwrap().starts_with(&format!("{}-", turn + 1)), "{now:?}");
        assert_eq!(agent.status(&engine.url("/echo")), "200");
    }
    trying.got_nothing_out(&engine);
}

/// Where a cgroup was removed and made again, what was pinned for the old one is of no use.
#[test]
fn hooks_of_a_slice_that_is_gone_are_made_anew() {
    let engine = Engine::new();
    engine.service().kill();
    let before = engine.pins();
    std::fs::remove_dir(engine.slice()).unwrap();
    let service = engine.service();
    assert_ne!(engine.pins(), before);
    assert_eq!(engine.pins().len(), 1);
    let agent = engine.agent();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    drop(service);
}

/// A slice that will not come back leaves nothing in the kernel once any service starts.
#[test]
fn what_a_slice_that_is_gone_left_is_removed_by_the_next_service() {
    let (gone, engine) = (Engine::new(), Engine::new());
    gone.service().kill();
    assert_eq!(gone.pins().len(), 1);
    std::fs::remove_dir(gone.slice()).unwrap();
    let _service = engine.service();
    assert_eq!((gone.pins().len(), engine.pins().len()), (0, 1));
}

/// Two at once, as when an orchestrator starts the new one before the old one ends: the newer serves.
#[test]
fn a_second_service_takes_over_from_the_first() {
    let engine = Engine::new();
    let (first, agent) = (engine.service(), engine.agent());
    let second = engine.service();
    assert_eq!(engine.pins().len(), 1);
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    first.kill();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    second.wait_until_healthy();
}

/// An agent that `start` starts again and again is served, each time in a cgroup of its own and under its own id.
#[track_caller]
pub(crate) fn known_anew<'a>(service: &Container<'_>, start: impl Fn() -> Container<'a>, url: &str) {
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
