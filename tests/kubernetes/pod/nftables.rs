//! `capture: nftables`: its guarantees, its limits, and the identity facts it has.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::json;

use super::egress::{OutsideServers, run_container};
use super::kubelet::Pod;
use super::{Driver, chart_pod_with};
use crate::containers::egress::EgressProbe;
use crate::containers::testbed::{Container, IDLE_COMMAND, OTHER_SECRET, SECRET};
use crate::support::process::wait_until;

fn nftables_pod() -> Pod {
    chart_pod_with(Driver::Systemd, &json!({ "capture": "nftables" }))
}

/// Writes a policy with these agents, and both secrets.
fn policy(pod: &Pod, agents: &str) {
    let files = [
        ("policy.yaml", format!("version: 1\nagents:\n{agents}")),
        ("config.yaml", "stores:\n  - mounted: { path: /run/secrets }\n".to_owned()),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    pod.write_files("agentsecrets-policy", &BTreeMap::from(files), 0o644);
    let files = [("STRIPE_KEY", SECRET), ("OTHER_KEY", OTHER_SECRET)];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    pod.write_files("agentsecrets-secrets", &BTreeMap::from(files), 0o444);
}

fn agent_entry(pod: &Pod, name: &str, fact: &str, secret: &str) -> String {
    let port = pod.api.port();
    format!(
        "  - name: {name}\n    match: {{ {fact} }}\n    allow:\n      - host: api.test\n        ports: [{port}]\n        private: true\n        secrets: [{secret}]\n"
    )
}

#[test]
fn request_gets_credential_and_only_uid_is_known() {
    let pod = nftables_pod();
    let add = &pod.sidecar().security_context.capabilities.add;
    assert_eq!(*add, ["NET_ADMIN", "SETGID", "SETUID"]);
    assert!(
        pod.spec.volumes.iter().all(|volume| volume.host_path.is_none()),
        "nothing of the node is mounted"
    );
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    let answer = agent.curl(&["-i"], &pod.url("/echo")).ok();
    assert_eq!(pod.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
    let record = sidecar.audit().pop().unwrap();
    assert_eq!((&record["status"], &record["agent_id"]), (&"OK".into(), &"coder".into()), "{record}");
    let process = &record["process"];
    assert_eq!((&process["uid"], &process["pid"]), (&1000.into(), &0.into()), "{record}");
    for unknown in ["exe", "sha256", "cgroup"] {
        assert_eq!(process[unknown], "", "{unknown}: {record}");
    }
    assert!(process["container"].is_null() && process["pod"].is_null(), "{record}");
    for status in sidecar.processes() {
        assert!(status.contains("Uid:\t64646\t64646\t64646\t64646"), "{status}");
        assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
    }
}

/// A policy can tell users apart; other facts cannot be proven here and never match.
#[test]
fn agents_are_told_apart_by_uid_only() {
    let pod = nftables_pod();
    let agents = agent_entry(&pod, "one", "uid: 1000", "STRIPE_KEY")
        + &agent_entry(&pod, "two", "uid: 1001", "OTHER_KEY");
    policy(&pod, &agents);
    let sandbox = pod.start_sandbox();
    let [_sidecar, one] = sandbox.start().try_into().ok().unwrap();
    let mut reduced = pod.spec.containers[0].clone();
    reduced.security_context.run_as_user = Some(1001);
    let two = sandbox.agent(&reduced);
    let spends = |agent: &Container<'_>, secret: &str| {
        let header = format!("Authorization: Bearer AS_SECRET_{secret}");
        // Both use the same source address and port in turn.
        let words = [
            "curl",
            "-sS",
            "-m",
            "20",
            "--local-port",
            "40123",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
        ];
        agent.exec(words.into_iter().chain([&*header, &pod.url("/echo")])).stdout
    };
    for _ in 0..3 {
        for (agent, secret, value) in [(&one, "STRIPE_KEY", SECRET), (&two, "OTHER_KEY", OTHER_SECRET)] {
            assert_eq!(spends(agent, secret), "200");
            assert_eq!(pod.api.received().pop().unwrap().header("authorization"), format!("Bearer {value}"));
        }
    }
    assert_eq!((spends(&one, "OTHER_KEY"), spends(&two, "STRIPE_KEY")), ("403".to_owned(), "403".to_owned()));
    for fact in
        [format!("container: {}", one.id), format!("cgroup: '{}/*'", pod.cgroup), "exe: '/**'".to_owned()]
    {
        policy(&pod, &agent_entry(&pod, "one", "uid: 1000", "STRIPE_KEY"));
        wait_until("the user is known", || spends(&one, "STRIPE_KEY") == "200");
        policy(&pod, &agent_entry(&pod, "one", &fact, "STRIPE_KEY"));
        wait_until(&fact, || spends(&one, "STRIPE_KEY") == "403");
    }
}

#[test]
fn restart_never_leaves_agent_unguarded() {
    let pod = nftables_pod();
    let sandbox = pod.start_sandbox();
    let mut running = sandbox.start().into_iter();
    let (sidecar, agent) = (running.next().unwrap(), running.next().unwrap());
    let trying = EgressProbe::start(&pod, &agent);
    // A request may meet a stale conntrack entry: it fails.
    let served = |agent: &Container<'_>| {
        agent.curl(&["-o", "/dev/null", "-w", "%{http_code}"], &pod.url("/echo")).stdout == "200"
    };
    wait_until("the agent is served", || served(&agent));
    sidecar.kill();
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
    // A container that starts meanwhile is blocked too.
    let another = sandbox.agent(&pod.spec.containers[0]);
    assert_eq!(another.curl(&[], &pod.url("/echo")).code, Some(7));
    for _ in 0..3 {
        // Each sidecar's rules replace those of the previous one.
        let sidecar = sandbox.sidecar();
        wait_until("the agent is served", || served(&agent));
        wait_until("the other is served", || served(&another));
        wait_until("it is healthy", || sidecar.exec(["/agentsecrets", "health"]).code == Some(0));
        sidecar.kill();
    }
    let idle = IDLE_COMMAND.map(str::to_owned).to_vec();
    let mut neighbour = pod.sidecar().clone();
    (neighbour.command, neighbour.args) = (idle, Vec::new());
    assert_eq!(sandbox.agent(&neighbour).exec(["/agentsecrets", "health"]).code, Some(6), "nobody serves");
    trying.assert_nothing_left(&pod);
}

#[test]
fn sidecar_needs_each_granted_capability() {
    let pod = nftables_pod();
    let sandbox = pod.start_sandbox();
    let whole = pod.sidecar().clone();
    for missing in &whole.security_context.capabilities.add {
        let mut spec = whole.clone();
        spec.security_context.capabilities.add.retain(|name| name != missing);
        let errors = sandbox.container(&spec).wait_for_failure();
        let expected =
            if missing == "NET_ADMIN" { "it takes CAP_NET_ADMIN" } else { "cannot give up privileges" };
        assert!(errors.contains(expected), "{missing}: {errors}");
    }
    drop(sandbox.sidecar());
}

/// Bypass attempts against rules that know packets, not programs.
const BYPASS_ATTEMPTS: &str = r"
import errno, socket, sys
out = sys.argv[1]
def tell(name, call):
    try: print(name, call() or 'done', flush=True)
    except OSError as e: print(name, errno.errorcode.get(e.errno, type(e).__name__), flush=True)
def sockets(table, state=None):
    for line in open('/proc/net/' + table).readlines()[1:]:
        words = line.split()
        if state is None or words[3] == state: yield words
# The doors, which anybody sees: to them directly, as a connection and as a datagram.
for words in list(sockets('tcp', '0A')):
    port = int(words[1].split(':')[1], 16)
    def direct():
        s = socket.create_connection(('127.0.0.1', port), 3); s.settimeout(3)
        s.sendall(b'GET / HTTP/1.1\r\nhost: api.test\r\n\r\n'); return s.recv(99).split(b'\r\n')[0] or 'closed'
    tell('door', direct)
for words in list(sockets('udp')):
    port = int(words[1].split(':')[1], 16)
    tell('datagram', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-door', ('127.0.0.1', port)))
# From the port from which the sidecar's user has just sent, to where it sent.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 30111))
tell('port', lambda: s.sendto(b'leak-by-port', (out, 4433)))
def ping():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.sendto(b'\x08\x00' + bytes(6) + b'leak-by-ping', (out, 0))
tell('ping', ping)
def device():
    s = socket.socket(); s.settimeout(2); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'wire'); s.connect((out, 9)); s.sendall(b'leak-by-device')
tell('device', device)
def fast():
    s = socket.socket(); s.settimeout(2); s.sendto(b'leak-by-fast-open', 0x20000000, (out, 9))
tell('fast', fast)
def mark():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, 36, 0x61736f75); s.sendto(b'leak-by-mark', (out, 9))
tell('mark', mark)
def multipath():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.settimeout(2); s.connect((out, 9)); s.sendall(b'leak-by-mptcp')
tell('multipath', multipath)
def closing():
    for _ in range(50):
        s = socket.socket(); s.setblocking(False)
        try: s.connect((out, 9))
        except OSError: pass
        s.close()
tell('closing', closing)
";

#[test]
fn bypass_attempts_fail() {
    let pod = nftables_pod();
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    let out = pod.netns.local4().to_string();
    // One of our connections that is closed, but still in conntrack.
    let ours = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 30111))\n\
        s.sendto(b'word-of-ours', (sys.argv[1], 4433))";
    sidecar.exec_as("64646:64646", &["/usr/bin/python3", "-c", ours, &out]).ok();
    assert_eq!(pod.packets_with("word-of-ours").len(), 1);
    let output = agent.exec(["/usr/bin/python3", "-c", BYPASS_ATTEMPTS, &out]).ok();
    assert!(output.contains("ping EPERM") || output.contains("ping EACCES"), "{output}");
    assert!(output.contains("mark EPERM"), "{output}");
    assert!(output.contains("door ") && output.contains("datagram "), "what listens was found: {output}");
    assert!(!output.contains("door b'HTTP/1.1 200"), "{output}");
    assert_eq!(pod.packets_with("leak-").len(), 0, "{output}");
    assert!(output.contains("port EPERM"), "{output}");
    // No connection attempt reached anything but our servers.
    let knocks = pod.packets_to(pod.netns.local4().into());
    let allowed = [pod.api.port(), 53, 4433];
    let others: Vec<_> = knocks.iter().filter(|packet| !allowed.contains(&packet.destination_port)).collect();
    assert!(others.is_empty(), "{output} {others:?}");
}

/// The manual's limits of this capture mode hold.
#[test]
fn documented_limits_hold() {
    let pod = nftables_pod();
    let outside = OutsideServers::of(&pod);
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    // Its own loopback server is unreachable: rules cannot see its owner.
    let own = "import socket; s = socket.create_server(('127.0.0.1', 8123)); c = socket.create_connection(('127.0.0.1', 8123), 3)\n\
        c.settimeout(3); c.sendall(b'GET / HTTP/1.1\\r\\nhost: 127.0.0.1\\r\\n\\r\\n'); print(c.recv(99))";
    assert!(agent.exec(["/usr/bin/python3", "-c", own]).ok().contains("403 Forbidden"));
    // Without a serving process, a container that binds the listener's port receives other agents' traffic.
    let find = "import sys; print([int(l.split()[1].split(':')[1], 16) for l in list(open('/proc/net/tcp'))[1:] if l.split()[3] == '0A'])";
    let listeners = agent.exec(["/usr/bin/python3", "-c", find]).ok();
    sidecar.kill();
    let take = "import socket, sys, select\nservers = [socket.create_server(('127.0.0.1', port)) for port in eval(sys.argv[1])]\n\
        print('up', flush=True); s = select.select(servers, [], [], 20)[0][0]; print(s.accept()[0].recv(99))";
    let mut other = agent
        .exec_command(&["/usr/bin/python3", "-c", take, &listeners])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(other.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "up\n");
    let plain = format!("http://{}:80/", pod.netns.local4());
    agent.curl(&["-m", "3"], &plain);
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert!(line.contains("GET / HTTP/1.1"), "{line}");
    other.wait().unwrap();
    // The traffic stays in the pod and holds no value.
    assert_eq!(pod.packets_with("GET /").len(), 0);
    // A container with the sidecar's uid has egress.
    let mut reduced = pod.spec.containers[0].clone();
    reduced.security_context.run_as_user = Some(64646);
    run_container(&sandbox, &mut reduced, &outside.egress_attempts());
    assert!(!pod.packets_with("leak-by-udp4").is_empty());
}
