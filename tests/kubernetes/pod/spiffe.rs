//! The pod's SPIFFE id from the node's Workload API: the standard's protobuf on the socket of the CSI driver,
//! watched for changes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use super::super::SERVICE_UID;
use super::kubelet::Pod;
use super::{Driver, chart_pod_with, injected_pod};
use crate::containers::testbed::{Container, IDLE_COMMAND, SECRET, assert_unprivileged};
use crate::containers::workspace_file;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, run, wait_until};
use crate::support::python::PYTHON;

const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";
const HOUR: u32 = 3600;

/// A node's Workload API; dropping it ends it.
struct WorkloadApi {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl WorkloadApi {
    /// Starts it at the CSI driver's mount with the initial response `word`.
    fn start(pod: &Pod, word: &Value) -> Self {
        let mut python = command(PYTHON);
        // Without the machine's own packages; some are too old.
        python.arg("-S").env("PYTHONPATH", workspace_file("target/test-clients/kubernetes"));
        python.arg(workspace_file("tests/kubernetes/pod/workload_api.py")).arg(socket(pod));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut api = Self { child, input, output, socket: socket(pod) };
        api.send_command(word);
        api
    }

    fn send_command(&mut self, word: &Value) {
        writeln!(self.input, "{word}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "said\n", "the Workload API did not start");
    }

    fn issue(&mut self, id: &str) {
        self.send_command(&json!({ "issue": [[id, HOUR]] }));
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The socket in the CSI volume.
fn socket(pod: &Pod) -> PathBuf {
    pod.path("pod-volumes/agentsecrets-spiffe/spire-agent.sock")
}

/// The chart's pod, with a policy that gives the secret to this SPIFFE id only.
fn pod(identity: &str, more: &Value) -> Pod {
    let mut values = json!({ "spiffe": { "enabled": true } });
    json_patch::merge(&mut values, more);
    with_policy(chart_pod_with(Driver::Systemd, &values), identity)
}

fn with_policy(pod: Pod, identity: &str) -> Pod {
    let port = pod.api.port();
    let policy = format!(
        "version: 1\nagents:\n  - name: coder\n    match: {{ spiffe: \"{identity}\" }}\n    allow:\n      - host: api.test\n        \
         ports: [{port}]\n        private: true\n        secrets: [STRIPE_KEY]\n"
    );
    let files =
        [("policy.yaml", policy), ("config.yaml", "stores:\n  - mounted: { path: /run/secrets }\n".into())];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    pod.write_files("agentsecrets-policy", &files.into(), 0o644);
    pod
}

/// Waits until the agent's request has this status.
#[track_caller]
fn until_answered(status: &str, agent: &Container<'_>, pod: &Pod) {
    wait_until(&format!("answered with {status}"), || agent.status(&pod.url("/echo")) == status);
}

/// The rejection message of the agent's request.
#[track_caller]
fn rejection(agent: &Container<'_>, pod: &Pod) -> String {
    let answer = agent.curl(&["-w", "%{http_code}"], &pod.url("/echo")).ok();
    assert!(answer.ends_with("403") && answer.contains("capability_denied"), "{answer}");
    answer
}

#[test]
fn spiffe_id_must_match_policy() {
    let pod = pod(CODER, &json!({}));
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200", "{}", sidecar.errors());
    assert_eq!(pod.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let record = sidecar.audit().pop().unwrap();
    assert_eq!(record["process"]["spiffe"], json!([CODER]), "{record}");
    assert_eq!(record["process"]["pod"], pod.uid.as_str());

    // Other ids: another account, another trust domain, one that ours is a prefix of, and a prefix of ours.
    for other in [
        "spiffe://example.org/ns/agents/sa/other",
        "spiffe://evil.example/ns/agents/sa/coder",
        "spiffe://example.org/ns/agents/sa/coder2",
        "spiffe://example.org/ns/agents/sa/coder/x",
        "spiffe://example.org/ns/agents/sa",
    ] {
        api.issue(other);
        until_answered("403", &agent, &pod);
        let message = rejection(&agent, &pod);
        assert!(message.contains(&format!("match.spiffe: this workload is {other})")), "{message}");
        assert_eq!(sidecar.audit().pop().unwrap()["process"]["spiffe"], json!([other]));
        // A renewed certificate keeps the identity.
        api.issue(CODER);
        until_answered("200", &agent, &pod);
        api.issue(CODER);
        assert_eq!(agent.status(&pod.url("/echo")), "200");
    }
    // A workload may have several ids.
    api.send_command(&json!({ "issue": [["spiffe://example.org/first", HOUR], [CODER, HOUR]] }));
    let both = json!(["spiffe://example.org/first", CODER]);
    wait_until("both are on record", || {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        sidecar.audit().pop().unwrap()["process"]["spiffe"] == both
    });

    // The id is revoked.
    api.send_command(&json!({ "deny": "no identity issued" }));
    until_answered("403", &agent, &pod);
    let message = rejection(&agent, &pod);
    assert!(message.contains("gives it no identity; register it there"), "{message}");
    assert!(sidecar.audit().pop().unwrap()["process"].get("spiffe").is_none());
    api.issue(CODER);
    until_answered("200", &agent, &pod);

    let log = sidecar.errors();
    assert!(
        log.contains(&format!("this workload is {CODER}")) && log.contains("has no SPIFFE identity"),
        "{log}"
    );
    // The client of the Workload API has the sidecar's uid and no privilege, and is not the process that
    // reads agents' traffic.
    let processes = sidecar.processes();
    assert!(processes.len() >= 3, "who loads, who serves, who asks: {processes:?}");
    processes.iter().for_each(|status| assert_unprivileged(status, SERVICE_UID));
    assert_eq!(sidecar.stop(), Some(0));
}

#[test]
fn spiffe_svid_is_valid_until_expiry() {
    let pod = pod("spiffe://example.org/ns/agents/**", &json!({ "capture": "nftables" }));
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(
        agent.status(&pod.url("/echo")),
        "200",
        "rules know who the pod is, too: {}",
        sidecar.errors()
    );
    let brief = "spiffe://example.org/ns/agents/sa/brief";
    api.send_command(&json!({ "issue": [[brief, 20]] }));
    wait_until("it is another", || {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        sidecar.audit().pop().unwrap()["process"]["spiffe"] == json!([brief])
    });
    drop(api);
    wait_until("it is noticed", || sidecar.errors().contains("holds until it expires"));
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    until_answered("403", &agent, &pod);
    let message = rejection(&agent, &pod);
    assert!(message.contains("is not valid any more, and the Workload API cannot be asked"), "{message}");
    // A restarted API is queried again; one without a valid response does not help.
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, -1]] }));
    wait_until("it is asked again", || {
        rejection(&agent, &pod).contains("no identity that the Workload API gives is valid")
    });
    api.send_command(&json!({ "issue": [[CODER, 6]] }));
    until_answered("200", &agent, &pod);
    // A stalled API is dropped for one that responds.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(api.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    until_answered("403", &agent, &pod);
    fs::remove_file(socket(&pod)).unwrap();
    let _other = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    until_answered("200", &agent, &pod);
}

#[test]
fn faulty_workload_api_proves_nothing() {
    let pod = pod(CODER, &json!({}));
    let sandbox = pod.start_sandbox();
    // The sidecar is ready without it.
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    let message = rejection(&agent, &pod);
    assert!(
        message.contains("the Workload API cannot be asked") && message.contains("No such file"),
        "{message}"
    );
    // A server that accepts and sends nothing.
    let silent = UnixListener::bind(socket(&pod)).unwrap();
    fs::set_permissions(socket(&pod), fs::Permissions::from_mode(0o777)).unwrap();
    wait_until("it is given up on", || rejection(&agent, &pod).contains("does not answer within 5 s"));
    drop(silent);
    fs::remove_file(socket(&pod)).unwrap();
    // A server that speaks another protocol.
    let other = UnixListener::bind(socket(&pod)).unwrap();
    fs::set_permissions(socket(&pod), fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::spawn(move || {
        for mut stream in other.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    wait_until("it is not understood", || rejection(&agent, &pod).contains("frame with invalid size"));
    fs::remove_file(socket(&pod)).unwrap();
    // A server that speaks the protocol with invalid contents.
    let mut api = WorkloadApi::start(&pod, &json!({ "odd": "empty" }));
    wait_until("it is heard", || rejection(&agent, &pod).contains("answer cannot be used"));
    for odd in ["bytes", "authority"] {
        api.issue(CODER);
        until_answered("200", &agent, &pod);
        api.send_command(&json!({ "odd": odd }));
        until_answered("403", &agent, &pod);
        let message = rejection(&agent, &pod);
        assert!(message.contains("answer cannot be used"), "{odd}: {message}");
    }
    api.send_command(&json!({ "deny": "another reason" }));
    wait_until("it is heard", || rejection(&agent, &pod).contains("gives it no identity"));
    api.issue(CODER);
    until_answered("200", &agent, &pod);
    assert!(!sidecar.errors().contains(SECRET));
}

/// The socket is at the standard's path or the configured one only.
#[test]
fn remote_workload_api_is_refused() {
    let mut sidecar = command(AGENTSECRETS);
    let outcome = run(sidecar.args(["sidecar", "--spiffe", "tcp://127.0.0.1:8081"]));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("is not a Unix socket such as unix:///run/agent.sock"), "{outcome:?}");
    let mut sidecar = command(AGENTSECRETS);
    let outcome = run(sidecar.arg("sidecar").env("SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:8081"));
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("SPIFFE_ENDPOINT_SOCKET: 'tcp://127.0.0.1:8081' is not a Unix socket"),
        "{outcome:?}"
    );
    // A node service uses none: it would get its own id, not a pod's.
    let mut node = command(AGENTSECRETS);
    let outcome = run(node.args(["kubernetes", "node", "--spiffe", "unix:///run/agent.sock"]));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--spiffe"), "{outcome:?}");
}

/// An agent tries to pass for another workload: by claims, and by its own Workload API at the path of the
/// standard's variable.
#[test]
fn agent_cannot_claim_spiffe_id() {
    let own = "unix:///dev/shm/own.sock";
    let env = json!([{ "name": "SPIFFE_ENDPOINT_SOCKET", "value": own }]);
    let agent = json!({ "name": "agent", "image": "agent", "command": IDLE_COMMAND, "env": env });
    let pod = injected_pod(&json!({ "spiffe": { "enabled": true } }), &json!({ "containers": [agent] }));
    let pod = with_policy(pod, CODER);
    let other = "spiffe://example.org/ns/agents/sa/other";
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[other, HOUR]] }));
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    // The agent cannot see the socket.
    assert_eq!(agent.exec(["/bin/ls", "/spiffe-workload-api"]).code, Some(2));
    let url = pod.url("/echo");
    let claims = format!(
        "import os, socket, threading, urllib.error, urllib.request\n\
         path = os.environ['SPIFFE_ENDPOINT_SOCKET'].removeprefix('unix://')\n\
         s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()\n\
         asked = []\n\
         def serve():\n    while True: asked.append(s.accept()[0])\n\
         threading.Thread(target=serve, daemon=True).start()\n\
         head = {{'Authorization': 'Bearer AS_SECRET_STRIPE_KEY', 'X-AS-Agent-ID': 'coder', 'X-SPIFFE-ID': '{CODER}',\n\
             'X-Forwarded-Client-Cert': 'URI={CODER}', 'workload.spiffe.io': 'true'}}\n\
         try:\n    urllib.request.urlopen(urllib.request.Request('{url}', headers=head), timeout=20); print('spent')\n\
         except urllib.error.HTTPError as error: print(error.code, len(asked), error.read().decode())\n"
    );
    let message = agent.exec(["/usr/bin/python3", "-c", &claims]).ok();
    assert!(
        message.starts_with("403 0 ")
            && message.contains("this workload is spiffe://example.org/ns/agents/sa/other"),
        "{message}"
    );
    assert_eq!(pod.api.received().len(), 0, "nothing of it reached the server");
    let record = sidecar.audit().pop().unwrap();
    assert_eq!(record["process"]["spiffe"], json!([other]), "{record}");
    api.issue(CODER);
    until_answered("200", &agent, &pod);
}
