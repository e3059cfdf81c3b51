//! An agent's container has no egress except through the service; a container outside the slice has
//! (control).

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::Engine;
use super::testbed::{Container, IDLE_COMMAND, Testbed, assert_unprivileged};
use crate::support::upstream::{Options, Upstream};

/// Tries every way out of a container, each with its own marker, and prints the kernel's answers.
pub(crate) const EGRESS_ATTEMPTS: &str = r"
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

/// A cgroup outside the agents' slice; dropping it removes it.
struct RemoveOnDrop(std::path::PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn agent_container_egress_is_blocked() {
    let engine = Engine::new();
    let (here4, here6) = (engine.netns.local4(), engine.netns.local6());
    let plain = Upstream::start(Options::plain().at((here4, 0)));
    let plain6 = Upstream::start(Options::plain().at((here6, 0)));
    let (here4, here6) = (here4.to_string(), here6.to_string());
    let (port, port6) = (plain.port().to_string(), plain6.port().to_string());
    let tries = ["/usr/bin/python3", "-c", EGRESS_ATTEMPTS, &here4, &here6, &port, &port6];
    // An address without a listener: no data is sent, but the attempt is captured.
    let nowhere = [[203, 0, 113, 5], [192, 0, 2, 1]].map(std::net::Ipv4Addr::from);
    let knocks = || nowhere.map(|address| engine.packets_to(address.into()).len());
    let (service, agent) = (engine.start_service(), engine.start_agent());
    // The service itself connects while it has no hooks (control).
    let before = knocks();
    let output = agent.exec(tries).ok();
    assert_eq!(engine.packets_with("leak-").len(), 0, "{output}");
    assert_eq!((plain.connections(), plain6.connections()), (0, 0));
    assert_eq!(knocks(), before, "{output}");
    for refused in ["udp4 EPERM", "udp6 EPERM", "raw EPERM", "packet EPERM"] {
        assert!(output.contains(refused), "{output}");
    }
    // The health endpoint answers the service's own check only.
    assert!(!output.contains("held"), "{output}");

    let mut outside = engine.compose.services["agent"].clone();
    outside.cgroup_parent = format!("outside-{}", outside.cgroup_parent);
    let _removed = RemoveOnDrop(engine.slice().with_file_name(&outside.cgroup_parent));
    let neighbour = engine.start_agent_as(&outside, None);
    let output = neighbour.exec(tries).ok();
    for word in ["leak-by-tcp4", "leak-by-tcp6", "leak-by-udp4", "leak-by-udp6", "leak-by-dns"] {
        assert!(!engine.packets_with(word).is_empty(), "{word}: {output}");
    }
    assert!(knocks().iter().zip(before).all(|(now, before)| *now > before), "{output}");
    drop(neighbour);
    assert_eq!(service.exec(["/agentsecrets", "health"]).code, Some(0));
}

#[test]
fn health_check_fails_without_hooks_or_service() {
    let engine = Engine::new();
    let mut outside = engine.compose.services["agentsecrets"].clone();
    outside.cgroup_parent = format!("outside-{}", outside.cgroup_parent);
    let _removed = RemoveOnDrop(engine.slice().with_file_name(&outside.cgroup_parent));
    // A container of the same image that has no hooks.
    let neighbour = engine.start_with(&outside, &IDLE_COMMAND);
    let outcome = neighbour.exec(["/agentsecrets", "health", "--json"]);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
    assert!(outcome.stdout.contains("no hook is in force"), "{outcome:?}");
    drop(neighbour);

    // Hooks without a serving process: a container of our image in the slice, after the service was killed.
    engine.start_service().kill();
    let neighbour = engine.start_with(&engine.compose.services["agentsecrets"], &IDLE_COMMAND);
    let outcome = neighbour.exec(["/agentsecrets", "health"]);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
}

#[test]
fn service_without_own_slice_hooks_nothing() {
    let engine = Engine::new();
    let mut service = engine.compose.services["agentsecrets"].clone();
    service.cgroup_parent = format!("system-of-others{}.slice", engine.netns.id());
    let _removed = RemoveOnDrop(engine.slice().with_file_name(&service.cgroup_parent));
    let refused = engine.start_service_unready(&service);
    let errors = refused.wait_for_failure();
    let message = format!("/{}, may hold containers that are not its agents", service.cgroup_parent);
    assert!(errors.contains(&message), "{errors}");
    assert!(errors.contains("cgroup_parent: agentsecrets.slice"), "{errors}");
}

/// Once it reports ready, no process of the service has privileges or is root.
#[test]
fn serving_process_is_unprivileged() {
    let engine = Engine::new();
    let service = engine.start_service();
    let processes = service.processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for status in processes {
        assert_unprivileged(&status, 65532);
    }
}

/// Tries in a loop; prints a line after the first round.
const PROBE_SCRIPT: &str = r"
import socket, sys, time
said = False
while True:
    time.sleep(0.01)
    for call in (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-udp', (sys.argv[1], 4433)),
        lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).sendall(b'leak-by-tcp'),
    ):
        try: call()
        except OSError: pass
    if not said: print('trying', flush=True)
    said = True
";

/// Running attempts.
pub(crate) struct EgressProbe(Child);

impl EgressProbe {
    /// Starts in `agent`, toward the testbed's server.
    pub(crate) fn start(site: &Testbed, agent: &Container<'_>) -> Self {
        let (address, port) = (site.netns.local4().to_string(), site.api.port().to_string());
        let mut tries = agent.exec_command(&["/usr/bin/python3", "-c", PROBE_SCRIPT, &address, &port]);
        let mut trying = Self(tries.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut output = String::new();
        BufReader::new(trying.0.stdout.as_mut().unwrap()).read_line(&mut output).unwrap();
        assert_eq!(output, "trying\n");
        trying
    }

    /// Asserts that it is still trying and that nothing left the network.
    #[track_caller]
    pub(crate) fn assert_nothing_left(mut self, site: &Testbed) {
        assert!(self.0.try_wait().unwrap().is_none(), "it does not try any longer");
        drop(self);
        assert_eq!(site.packets_with("leak-").len(), 0);
    }
}

impl Drop for EgressProbe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
