//! Whose pod it is, as the SPIFFE Workload API of its node tells the sidecar: by the standard's own protobuf, at the
//! socket that the cluster's CSI driver mounts, followed as it changes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use super::super::SERVES;
use super::kubelet::Pod;
use super::{Driver, injected, of_values};
use crate::containers::file;
use crate::containers::site::{Container, IDLE, SECRET, assert_unprivileged};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, finish, until};
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
    /// Starts it where the pod's driver mounts it, and has it say `word`.
    fn start(pod: &Pod, word: &Value) -> Self {
        let mut python = command(PYTHON);
        // Without the machine's own packages, some of which are too old for these.
        python.arg("-S").env("PYTHONPATH", file("target/test-clients/kubernetes"));
        python.arg(file("tests/kubernetes/pod/workload_api.py")).arg(socket(pod));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut api = Self { child, input, output, socket: socket(pod) };
        api.say(word);
        api
    }

    fn say(&mut self, word: &Value) {
        writeln!(self.input, "{word}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "said\n", "the Workload API did not start");
    }

    fn issue(&mut self, id: &str) {
        self.say(&json!({ "issue": [[id, HOUR]] }));
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The socket in the volume of the CSI driver.
fn socket(pod: &Pod) -> PathBuf {
    pod.path("pod-volumes/agentsecrets-spiffe/spire-agent.sock")
}

/// The chart's pod, with a policy that gives the secret to the workload with this identity alone.
fn pod(identity: &str, more: &Value) -> Pod {
    let mut values = json!({ "spiffe": { "enabled": true } });
    json_patch::merge(&mut values, more);
    with_policy(of_values(Driver::Systemd, &values), identity)
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

/// Waits until the agent's call is answered with this status.
#[track_caller]
fn until_answered(status: &str, agent: &Container<'_>, pod: &Pod) {
    until(&format!("answered with {status}"), || agent.status(&pod.url("/echo")) == status);
}

/// What the agent is told why its call is refused.
#[track_caller]
fn refusal(agent: &Container<'_>, pod: &Pod) -> String {
    let answer = agent.curl(&["-w", "%{http_code}"], &pod.url("/echo")).ok();
    assert!(answer.ends_with("403") && answer.contains("capability_denied"), "{answer}");
    answer
}

#[test]
fn a_credential_is_spent_while_the_pod_has_the_identity_that_the_policy_names() {
    let pod = pod(CODER, &json!({}));
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    let sandbox = pod.sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200", "{}", sidecar.errors());
    assert_eq!(pod.api.only().header("authorization"), format!("Bearer {SECRET}"));
    let record = sidecar.audit().pop().unwrap();
    assert_eq!(record["process"]["spiffe"], json!([CODER]), "{record}");
    assert_eq!(record["process"]["pod"], pod.uid.as_str());

    // Another identity: of another account, of another trust domain, one of which ours is but a beginning, its own beginning.
    for other in [
        "spiffe://example.org/ns/agents/sa/other",
        "spiffe://evil.example/ns/agents/sa/coder",
        "spiffe://example.org/ns/agents/sa/coder2",
        "spiffe://example.org/ns/agents/sa/coder/x",
        "spiffe://example.org/ns/agents/sa",
    ] {
        api.issue(other);
        until_answered("403", &agent, &pod);
        let told = refusal(&agent, &pod);
        assert!(told.contains(&format!("match.spiffe: this workload is {other})")), "{told}");
        assert_eq!(sidecar.audit().pop().unwrap()["process"]["spiffe"], json!([other]));
        // A certificate is renewed, and the identity is the one before.
        api.issue(CODER);
        until_answered("200", &agent, &pod);
        api.issue(CODER);
        assert_eq!(agent.status(&pod.url("/echo")), "200");
    }
    // A workload may have several.
    api.say(&json!({ "issue": [["spiffe://example.org/first", HOUR], [CODER, HOUR]] }));
    let both = json!(["spiffe://example.org/first", CODER]);
    until("both are on record", || {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        sidecar.audit().pop().unwrap()["process"]["spiffe"] == both
    });

    // Taken back.
    api.say(&json!({ "deny": "no identity issued" }));
    until_answered("403", &agent, &pod);
    let told = refusal(&agent, &pod);
    assert!(told.contains("gives it no identity; register it there"), "{told}");
    assert!(sidecar.audit().pop().unwrap()["process"].get("spiffe").is_none());
    api.issue(CODER);
    until_answered("200", &agent, &pod);

    let log = sidecar.errors();
    assert!(
        log.contains(&format!("this workload is {CODER}")) && log.contains("has no SPIFFE identity"),
        "{log}"
    );
    // Who asks is the sidecar's user, without a right, and is not who reads what agents send.
    let processes = sidecar.processes();
    assert!(processes.len() >= 3, "who loads, who serves, who asks: {processes:?}");
    processes.iter().for_each(|status| assert_unprivileged(status, SERVES));
    assert_eq!(sidecar.stop(), Some(0));
}

#[test]
fn an_identity_outlives_the_workload_api_until_it_expires_and_no_longer() {
    let pod = pod("spiffe://example.org/ns/agents/**", &json!({ "capture": "nftables" }));
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    let sandbox = pod.sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(
        agent.status(&pod.url("/echo")),
        "200",
        "rules know who the pod is, too: {}",
        sidecar.errors()
    );
    let brief = "spiffe://example.org/ns/agents/sa/brief";
    api.say(&json!({ "issue": [[brief, 20]] }));
    until("it is another", || {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        sidecar.audit().pop().unwrap()["process"]["spiffe"] == json!([brief])
    });
    drop(api);
    until("it is noticed", || sidecar.errors().contains("holds until it expires"));
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    until_answered("403", &agent, &pod);
    let told = refusal(&agent, &pod);
    assert!(told.contains("is not valid any more, and the Workload API cannot be asked"), "{told}");
    // One that is there again is asked again, and one that has nothing valid to say helps nobody.
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, -1]] }));
    until("it is asked again", || {
        refusal(&agent, &pod).contains("no identity that the Workload API gives is valid")
    });
    api.say(&json!({ "issue": [[CODER, 6]] }));
    until_answered("200", &agent, &pod);
    // One that stands still while we listen is left for one that answers.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(api.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    until_answered("403", &agent, &pod);
    fs::remove_file(socket(&pod)).unwrap();
    let _other = WorkloadApi::start(&pod, &json!({ "issue": [[CODER, HOUR]] }));
    until_answered("200", &agent, &pod);
}

#[test]
fn a_workload_api_that_is_not_there_silent_or_mad_proves_nothing_and_is_asked_again() {
    let pod = pod(CODER, &json!({}));
    let sandbox = pod.sandbox();
    // The sidecar is ready without it.
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    let told = refusal(&agent, &pod);
    assert!(told.contains("the Workload API cannot be asked") && told.contains("No such file"), "{told}");
    // Whoever takes the connection and says nothing.
    let silent = UnixListener::bind(socket(&pod)).unwrap();
    fs::set_permissions(socket(&pod), fs::Permissions::from_mode(0o777)).unwrap();
    until("it is given up on", || refusal(&agent, &pod).contains("does not answer within 5 s"));
    drop(silent);
    fs::remove_file(socket(&pod)).unwrap();
    // Whoever says something else.
    let other = UnixListener::bind(socket(&pod)).unwrap();
    fs::set_permissions(socket(&pod), fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::spawn(move || {
        for mut stream in other.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    until("it is not understood", || refusal(&agent, &pod).contains("frame with invalid size"));
    fs::remove_file(socket(&pod)).unwrap();
    // What speaks the protocol and says nonsense.
    let mut api = WorkloadApi::start(&pod, &json!({ "odd": "empty" }));
    until("it is heard", || refusal(&agent, &pod).contains("answer cannot be used"));
    for odd in ["bytes", "authority"] {
        api.issue(CODER);
        until_answered("200", &agent, &pod);
        api.say(&json!({ "odd": odd }));
        until_answered("403", &agent, &pod);
        let told = refusal(&agent, &pod);
        assert!(told.contains("answer cannot be used"), "{odd}: {told}");
    }
    api.say(&json!({ "deny": "another reason" }));
    until("it is heard", || refusal(&agent, &pod).contains("gives it no identity"));
    api.issue(CODER);
    until_answered("200", &agent, &pod);
    assert!(!sidecar.errors().contains(SECRET));
}

/// It stands where the standard has it looked for, or where we are told; nowhere else.
#[test]
fn a_workload_api_that_is_no_socket_of_this_machine_is_refused_before_anything_begins() {
    let mut sidecar = command(AGENTSECRETS);
    let outcome = finish(sidecar.args(["sidecar", "--spiffe", "tcp://127.0.0.1:8081"]));
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("is no socket of this machine such as unix:///run/agent.sock"),
        "{outcome:?}"
    );
    let mut sidecar = command(AGENTSECRETS);
    let outcome = finish(sidecar.arg("sidecar").env("SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:8081"));
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("SPIFFE_ENDPOINT_SOCKET: 'tcp://127.0.0.1:8081' is no socket"),
        "{outcome:?}"
    );
    // A service of a node has none: it would be told who it is, not who a pod is.
    let mut node = command(AGENTSECRETS);
    let outcome = finish(node.args(["kubernetes", "node", "--spiffe", "unix:///run/agent.sock"]));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--spiffe"), "{outcome:?}");
}

/// What an agent can do toward being taken for another workload: to say who it is, and a Workload API of its own
/// where the variable of the standard says that one is.
#[test]
fn an_agent_that_claims_an_identity_or_serves_its_own_stays_what_its_pod_is() {
    let own = "unix:///dev/shm/own.sock";
    let env = json!([{ "name": "SPIFFE_ENDPOINT_SOCKET", "value": own }]);
    let agent = json!({ "name": "agent", "image": "agent", "command": IDLE, "env": env });
    let pod = injected(&json!({ "spiffe": { "enabled": true } }), &json!({ "containers": [agent] }));
    let pod = with_policy(pod, CODER);
    let other = "spiffe://example.org/ns/agents/sa/other";
    let mut api = WorkloadApi::start(&pod, &json!({ "issue": [[other, HOUR]] }));
    let sandbox = pod.sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    // The socket is not in its sight.
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
    let told = agent.exec(["/usr/bin/python3", "-c", &claims]).ok();
    assert!(
        told.starts_with("403 0 ")
            && told.contains("this workload is spiffe://example.org/ns/agents/sa/other"),
        "{told}"
    );
    assert_eq!(pod.api.received().len(), 0, "nothing of it reached the server");
    let record = sidecar.audit().pop().unwrap();
    assert_eq!(record["process"]["spiffe"], json!([other]), "{record}");
    api.issue(CODER);
    until_answered("200", &agent, &pod);
}
