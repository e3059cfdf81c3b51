//! Killed, restarted, upgraded, in whichever order: an agent is served or offline, never free.

use std::process::Stdio;

use super::{Engine, site};

/// Tries to get out without end, with a pause of so many seconds if one is given, and says so once.
pub(crate) const TRIES: &str = r"
import socket, sys, time
print('trying', flush=True)
while True:
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
    for call in (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-udp', (sys.argv[1], 4433)),
        lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).sendall(b'leak-by-tcp'),
    ):
        try: call()
        except OSError: pass
";

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
    assert_eq!(engine.left("HTTP").len(), 0);
    let service = engine.service();
    assert_eq!(agent.status(&engine.url("/echo")), "200");
    assert_eq!(service.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
}

#[test]
fn an_agent_that_is_started_again_is_held_from_its_first_packet_and_known_anew() {
    let engine = Engine::new();
    let service = engine.service();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let agent = engine.agent();
        assert_eq!(agent.status(&engine.url("/echo")), "200");
        seen.push((agent.id.clone(), agent.cgroup()));
        agent.finish();
    }
    let known: Vec<_> = service.audit().iter().map(|record| record["process"]["container"].clone()).collect();
    assert_eq!(known, seen.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    seen.dedup_by_key(|(_, cgroup)| *cgroup);
    assert_eq!(seen.len(), 3, "each has a cgroup of its own");
}

/// Hooks of another version stay in force until the new ones are.
#[test]
fn an_upgrade_leaves_no_moment_without_hooks() {
    let engine = Engine::new();
    let service = engine.service();
    let agent = engine.agent();
    let (address, port) = (engine.netns.here4().to_string(), engine.api.port().to_string());
    let mut trying = agent
        .beside(&["/usr/bin/python3", "-c", TRIES, &address, &port])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(trying.stdout.as_mut().unwrap()), &mut said)
        .unwrap();
    assert_eq!(said, "trying\n");
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
    assert!(trying.try_wait().unwrap().is_none(), "it does not try any longer");
    trying.kill().unwrap();
    trying.wait().unwrap();
    assert_eq!(engine.left("leak-").len(), 0);
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
