//! An agent's container cannot get out but through the service, and a container beside it can: so the tests see
//! what they say.

use super::Engine;
use super::site::{IDLE, assert_unprivileged};
use crate::support::upstream::{Options, Upstream};

/// Tries every way out that a container has, each with a word of its own; what the kernel said is printed.
pub(crate) const TRIES: &str = r"
import errno, socket, sys
out, six, port, port6 = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def tell(name, call):
    try: print(name, call() or 'done', flush=True)
    except OSError as e: print(name, errno.errorcode.get(e.errno, type(e).__name__), flush=True)
def tcp(family, host, port, word):
    s = socket.socket(family); s.settimeout(3); s.connect((host, port)); s.sendall(word); return s.recv(99) or 'closed'
def udp(family, host, word):
    return socket.socket(family, socket.SOCK_DGRAM).sendto(word, (host, 4433)) and 'sent'
tell('tcp4', lambda: tcp(socket.AF_INET, out, port, b'leak-by-tcp4'))
tell('tcp-elsewhere', lambda: tcp(socket.AF_INET, '203.0.113.5', 443, b'leak-elsewhere'))
tell('tcp6', lambda: tcp(socket.AF_INET6, six, port6, b'leak-by-tcp6'))
tell('udp4', lambda: udp(socket.AF_INET, out, b'leak-by-udp4'))
tell('udp6', lambda: udp(socket.AF_INET6, six, b'leak-by-udp6'))
tell('dns', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-dns', (out, 53)) and 'sent')
tell('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tell('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
tell('self-test', lambda: tcp(socket.AF_INET, '192.0.2.1', 9, b'leak-by-self-test'))
";

/// A cgroup beside the agents', which is removed however the test goes.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn an_agents_container_cannot_get_out_otherwise_and_one_beside_it_can() {
    let engine = Engine::new();
    let (here4, here6) = (engine.netns.here4(), engine.netns.here6());
    let plain = Upstream::start(Options::plain().at((here4, 0)));
    let plain6 = Upstream::start(Options::plain().at((here6, 0)));
    let (here4, here6) = (here4.to_string(), here6.to_string());
    let (port, port6) = (plain.port().to_string(), plain6.port().to_string());
    let tries = ["/usr/bin/python3", "-c", TRIES, &here4, &here6, &port, &port6];
    // Where nobody answers, so that no word would be sent: who knocks is seen.
    let nowhere = [[203, 0, 113, 5], [192, 0, 2, 1]].map(std::net::Ipv4Addr::from);
    let knocks = || nowhere.map(|address| engine.left_for(address.into()).len());
    let (service, agent) = (engine.service(), engine.agent());
    // The service asks one of them itself, as long as it has no hooks.
    let before = knocks();
    let said = agent.exec(tries).ok();
    assert_eq!(engine.left("leak-").len(), 0, "{said}");
    assert_eq!((plain.connections(), plain6.connections()), (0, 0));
    assert_eq!(knocks(), before, "{said}");
    for refused in ["udp4 EPERM", "udp6 EPERM", "raw EPERM", "packet EPERM"] {
        assert!(said.contains(refused), "{said}");
    }
    // Whoever is no service of ours is not answered as we answer ourselves.
    assert!(!said.contains("held"), "{said}");

    let mut outside = engine.compose.services["agent"].clone();
    outside.cgroup_parent = format!("outside-{}", outside.cgroup_parent);
    let _removed = Removed(engine.slice().with_file_name(&outside.cgroup_parent));
    let beside = engine.agent_as(&outside, None);
    let said = beside.exec(tries).ok();
    for word in ["leak-by-tcp4", "leak-by-tcp6", "leak-by-udp4", "leak-by-udp6", "leak-by-dns"] {
        assert!(!engine.left(word).is_empty(), "{word}: {said}");
    }
    assert!(knocks().iter().zip(before).all(|(now, before)| *now > before), "{said}");
    drop(beside);
    assert_eq!(service.exec(["/agentsecrets", "health"]).code, Some(0));
}

#[test]
fn the_health_check_fails_where_nothing_is_held_or_served() {
    let engine = Engine::new();
    let mut outside = engine.compose.services["agentsecrets"].clone();
    outside.cgroup_parent = format!("outside-{}", outside.cgroup_parent);
    let _removed = Removed(engine.slice().with_file_name(&outside.cgroup_parent));
    // A container of the same image that guards nothing.
    let beside = engine.start_with(&outside, &IDLE);
    let outcome = beside.exec(["/agentsecrets", "health", "--json"]);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
    assert!(outcome.stdout.contains("no hook is in force"), "{outcome:?}");
    drop(beside);

    // Hooks without anybody who serves: a container of ours beside the agents, after the service was killed.
    engine.service().kill();
    let beside = engine.start_with(&engine.compose.services["agentsecrets"], &IDLE);
    let outcome = beside.exec(["/agentsecrets", "health"]);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
}

#[test]
fn a_service_without_a_slice_of_its_own_hooks_nobody_else() {
    let engine = Engine::new();
    let mut service = engine.compose.services["agentsecrets"].clone();
    service.cgroup_parent = format!("system-of-others{}.slice", engine.netns.number());
    let _removed = Removed(engine.slice().with_file_name(&service.cgroup_parent));
    let refused = engine.unready(&service);
    let errors = refused.end();
    let says = format!("/{}, may hold containers that are not its agents", service.cgroup_parent);
    assert!(errors.contains(&says), "{errors}");
    assert!(errors.contains("cgroup_parent: agentsecrets.slice"), "{errors}");
}

/// After it said that it serves, nothing of the service has a privilege or is root.
#[test]
fn what_serves_is_nobody_with_nothing() {
    let engine = Engine::new();
    let service = engine.service();
    let processes = service.processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for status in processes {
        assert_unprivileged(&status, 65532);
    }
}
