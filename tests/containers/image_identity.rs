//! Matching agents by container image: a stand-in engine with Docker's API, on a socket that only its group
//! may use.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::Engine;
use super::testbed::Container;

const GROUP: u32 = 991;
const ID: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

/// The engine's state: images by container id, and the requests received.
#[derive(Clone, Default)]
struct DockerApi {
    containers: Arc<Mutex<BTreeMap<String, (&'static str, &'static str)>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl DockerApi {
    /// Listens on the socket that the service uses.
    fn start(engine: &Engine) -> Self {
        let docker = Self::default();
        fs::create_dir(engine.path("docker")).unwrap();
        let socket = engine.path("docker/docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        chown(&socket, Some(0), Some(GROUP)).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
        let answering = docker.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let (status, body) = answering.answer(&head[0]);
                let fields =
                    "Api-Version: 1.51\r\nContent-Type: application/json\r\nServer: Docker/28.2.2 (linux)";
                let _ = write!(stream, "HTTP/1.0 {status}\r\n{fields}\r\n\r\n{body}");
                answering.requests.lock().unwrap().push(head[0].clone());
            }
        });
        docker
    }

    fn answer(&self, line: &str) -> (&'static str, String) {
        let containers = self.containers.lock().unwrap();
        let path = line.strip_prefix("GET ").and_then(|rest| rest.split_once(' ')).unwrap().0;
        let found = match path.split('/').collect::<Vec<_>>()[..] {
            ["", "containers", id, "json"] => containers.get(id).map(|(name, image)| {
                let config = json!({ "Hostname": "agent", "User": "1000:1000", "Env": ["A=b"], "Image": name });
                json!({ "Id": id, "Created": "2026-01-01T00:00:00Z", "Name": "/agent-1", "Image": image, "Config": config })
            }),
            ["", "images", id, "json"] => {
                Some(json!({ "Id": id, "RepoTags": [], "RepoDigests": [format!("acme/agent@{id}")] }))
            }
            _ => None,
        };
        match found {
            Some(found) => ("200 OK", found.to_string()),
            None => ("404 Not Found", json!({ "message": "No such container" }).to_string()),
        }
    }

    /// Sets the image of a container.
    fn add_container(&self, container: &Container<'_>, name: &'static str, image: &'static str) {
        self.containers.lock().unwrap().insert(container.id.clone(), (name, image));
    }
}

/// Starts the service with the engine configured and waits until it is healthy.
fn service(engine: &Engine) -> Container<'_> {
    let mut service = engine.compose.services["agentsecrets"].clone();
    service.command.extend(["--engine", "unix:///docker/docker.sock"].map(str::to_owned));
    service.volumes.push("./docker:/docker:ro".to_owned());
    let service = engine.start_service_unready(&service);
    service.wait_until_healthy();
    service
}

/// Writes a policy whose only agent has this image.
fn policy_for_image(engine: &Engine, image: &str) {
    let allow = engine.allow("secrets: [STRIPE_KEY]");
    engine.policy(&format!("  - name: coder\n    match: {{ image: '{image}' }}\n    allow:\n{allow}"));
}

#[test]
fn agent_is_matched_by_image_from_engine() {
    let engine = Engine::new();
    let docker = DockerApi::start(&engine);
    policy_for_image(&engine, "acme/agent:1");
    let (service, agent, other, stranger) =
        (service(&engine), engine.start_agent(), engine.start_agent(), engine.start_agent());
    docker.add_container(&agent, "acme/agent:1", ID);
    docker.add_container(&other, "evil.example/acme/agent:1", OTHER);
    let url = engine.url("/echo");
    for _ in 0..3 {
        assert_eq!(
            [&agent, &other, &stranger].map(|container| container.status(&url)),
            ["200", "403", "403"]
        );
    }
    let records = service.audit();
    let (right, wrong, unknown) = (&records[0]["process"], &records[1]["process"], &records[2]["process"]);
    assert_eq!((&right["image"], &right["image_id"]), (&json!("docker.io/acme/agent:1"), &json!(ID)));
    assert_eq!((&wrong["image"], &wrong["image_id"]), (&json!("evil.example/acme/agent:1"), &json!(OTHER)));
    assert_eq!((&unknown["image"], &unknown["container"]), (&json!(null), &json!(stranger.id)));
    // Only one process queries the engine; it has no other privilege and does not read agents' traffic.
    let service_cgroup = engine.slice().join(format!("docker-{}.scope/cgroup.procs", service.id));
    let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let statuses: Vec<String> = fs::read_to_string(service_cgroup).unwrap().lines().map(status).collect();
    let may_ask =
        |status: &&String| status.lines().any(|line| line == format!("Gid:\t{0}\t{0}\t{0}\t{0}", GROUP));
    let asks: Vec<_> = statuses.iter().filter(may_ask).collect();
    assert!(statuses.len() > 2 && asks.len() == 1, "{statuses:?}");
    for line in
        ["Uid:\t65532\t65532\t65532\t65532", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(asks[0].contains(line), "{line}: {}", asks[0]);
    }
    // Results are cached, and nothing else is requested.
    let requests = docker.requests.lock().unwrap().clone();
    let about = |container: &Container<'_>| {
        requests
            .iter()
            .filter(|line| **line == format!("GET /containers/{}/json HTTP/1.0", container.id))
            .count()
    };
    assert_eq!((about(&agent), about(&other), about(&stranger)), (1, 1, 3));
    assert_eq!(requests.len(), 5 + 2, "{requests:?}");
}

#[test]
fn unavailable_engine_proves_no_new_image() {
    let engine = Engine::new();
    let docker = DockerApi::start(&engine);
    policy_for_image(&engine, &format!("acme/agent@{ID}"));
    let (_service, agent, other, late) =
        (service(&engine), engine.start_agent(), engine.start_agent(), engine.start_agent());
    docker.add_container(&agent, "acme/agent:1", ID);
    docker.add_container(&other, "acme/agent:1", OTHER);
    docker.add_container(&late, "acme/agent:1", ID);
    let url = engine.url("/echo");
    assert_eq!([&agent, &other].map(|container| container.status(&url)), ["200", "403"]);
    fs::remove_file(engine.path("docker/docker.sock")).unwrap();
    assert_eq!([&agent, &late].map(|container| container.status(&url)), ["200", "403"]);
}

/// An agent tries to pass for another: with nested cgroups named like the other's container, its own engine
/// socket at the service's path, and claims in its request.
#[test]
fn agent_cannot_claim_another_image() {
    let engine = Engine::new();
    let docker = DockerApi::start(&engine);
    policy_for_image(&engine, "acme/agent:1");
    let mut service_of_agent = engine.compose.services["agent"].clone();
    service_of_agent.environment.insert("IMAGE".to_owned(), "acme/agent:1".to_owned());
    let (_service, agent, forger) =
        (service(&engine), engine.start_agent(), engine.start_agent_as(&service_of_agent, None));
    docker.add_container(&agent, "acme/agent:1", ID);
    docker.add_container(&forger, "acme/forger:1", OTHER);
    let url = engine.url("/echo");
    // Its own engine claims the other image.
    let answer = format!(
        "import json, os, socket, threading, urllib.request\n\
         os.makedirs('docker'); s = socket.socket(socket.AF_UNIX); s.bind('docker/docker.sock'); s.listen()\n\
         asked = []\n\
         def serve():\n    while True: asked.append(s.accept()[0])\n\
         threading.Thread(target=serve, daemon=True).start()\n\
         head = {{'Authorization': 'Bearer AS_SECRET_STRIPE_KEY', 'X-AS-Agent-ID': 'coder', 'X-Image': 'acme/agent:1'}}\n\
         try:\n    urllib.request.urlopen(urllib.request.Request('{url}', headers=head), timeout=20); print('spent')\n\
         except urllib.error.HTTPError as error: print(error.code, len(asked))\n"
    );
    assert_eq!(forger.exec(["/usr/bin/python3", "-c", &answer]).ok(), "403 0\n");
    // In a nested cgroup.
    let own = engine.slice().join(format!("docker-{}.scope", forger.id));
    let nested = own.join(format!("docker-{}.scope", agent.id));
    fs::create_dir(&nested).unwrap();
    let move_and_call = "read line; exec curl -sS -m 20 -o /dev/null -w '%{http_code}' \
        -H 'Authorization: Bearer AS_SECRET_STRIPE_KEY' \"$0\"";
    let mut call = forger.exec_command(&["/bin/sh", "-c", move_and_call, &url]);
    call.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut call = call.spawn().unwrap();
    // All processes of its container that wait for a line, except the first.
    let waiting = loop {
        let procs = fs::read_to_string(own.join("cgroup.procs")).unwrap();
        let shell = procs.lines().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("exec curl"))
        });
        if let Some(pid) = shell {
            break pid.to_owned();
        }
        std::thread::yield_now();
    };
    fs::write(nested.join("cgroup.procs"), &waiting).unwrap();
    call.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let answered = call.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(answered.stdout).unwrap(), "403");
    assert_eq!(engine.api.received().len(), 0, "nothing of the forger's reached the server");
    assert_eq!(agent.status(&url), "200");
}
