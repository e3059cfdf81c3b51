//! The compose file as a person starts it: Compose's own client, Docker's own engine, and the image that `cargo xtask
//! dist` makes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dist::{made, unpacked};
use super::site::{SECRET, Site};
use super::{Engine, compose, deploy, file};
use crate::support::process::{Outcome, command, finish};

/// The network of the containers.
const SUBNET: &str = "172.31.77.0/24";

/// What curl says to send an archive.
const TAR: [&str; 5] = ["-X", "POST", "-H", "Content-Type: application/x-tar", "--data-binary"];

/// A project in the folder of `engine`, and an engine of Docker's, whose networks are in the namespace of that.
struct Docker<'a> {
    engine: &'a Engine,
    daemon: Child,
    /// The program of the agents' containers.
    agent: &'static str,
}

impl<'a> Docker<'a> {
    fn start(engine: &'a Engine) -> Self {
        let log = fs::File::create(engine.path("dockerd.log")).unwrap();
        let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
        let mut daemon = command("nsenter");
        daemon.arg(format!("--net=/run/netns/{}", engine.netns.name()));
        daemon.args(["unshare", "--mount", "sh", "-c", script, "sh"]);
        daemon.arg(file("target/test-clients/docker/usr/sbin/dockerd"));
        daemon.args([
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver=vfs",
            "--group=root",
        ]);
        for (flag, at) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "dockerd.pid")] {
            daemon.arg(flag).arg(engine.path(at));
        }
        daemon.arg("--host").arg(format!("unix://{}", engine.path("docker.sock").display()));
        let daemon = daemon.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let docker = Self { engine, daemon, agent: "sleep 1000" };
        let end = Instant::now() + Duration::from_secs(60);
        while docker.api(&["/_ping"]).stdout != "OK" {
            assert!(Instant::now() < end, "{}", fs::read_to_string(engine.path("dockerd.log")).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    /// Its API, by curl's words.
    fn api(&self, words: &[&str]) -> Outcome {
        let (path, more) = words.split_last().unwrap();
        let mut curl = command("curl");
        curl.args(["-sS", "--fail-with-body", "--unix-socket"])
            .arg(self.engine.path("docker.sock"))
            .args(more);
        finish(curl.arg(format!("http://engine{path}")))
    }

    /// The image that was made, and two for agents, which are the machine's own programs.
    fn loads(&self) {
        let archive = format!("@{}", made(".oci.tar").display());
        let said = self.api(&[&TAR[..], &[&archive, "/images/load"]].concat()).ok();
        assert!(said.contains("Loaded image: agentsecrets:"), "{said}");
        Site::stand_in(&self.engine.path("agent"));
        for name in ["acme/agent", "acme/other"] {
            self.imports(&self.engine.path("agent"), name, "1");
        }
    }

    /// An image of the files in `root`.
    fn imports(&self, root: &Path, name: &str, tag: &str) {
        let archive = root.with_extension("tar");
        finish(command("tar").arg("-cf").arg(&archive).arg("-C").arg(root).arg(".")).ok();
        let archive = format!("@{}", archive.display());
        let path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}&changes=ENV%20PATH=/usr/bin");
        self.api(&[&TAR[..], &[&archive, &path]].concat()).ok();
    }

    /// The compose file, and what tests add to it.
    fn writes_project(&self) {
        fs::copy(deploy("compose.yaml"), self.engine.path("compose.yaml")).unwrap();
        let server = self.engine.netns.here4();
        let agent = format!(
            "    command: [sh, -c, {:?}]\n    volumes: [\"/usr:/usr:ro\", \"/etc/ssl:/etc/ssl:ro\"]\n",
            self.agent
        );
        let added = format!(
            "services:\n  network:\n    extra_hosts: [\"api.test:{server}\"]\n  agentsecrets:\n    \
             command: [sidecar, --engine, \"unix:///var/run/docker.sock\"]\n    \
             environment: {{ AGENTSECRETS_UPSTREAM_CA: /test/ca.pem }}\n    \
             volumes: [\"./ca.pem:/test/ca.pem:ro\", \"./docker.sock:/var/run/docker.sock\"]\n  agent:\n{agent}  \
             other:\n    extends: {{ file: compose.yaml, service: agent }}\n    image: acme/other:1\n{agent}\
             networks:\n  default: {{ ipam: {{ config: [ {{ subnet: {SUBNET} }} ] }} }}\n"
        );
        self.engine.write("added.yaml", &added);
        // Answers find back, as they would to any network of an engine that translates no addresses.
        let (link, there) = (self.engine.netns.link(), self.engine.netns.there4().to_string());
        finish(command("ip").args(["route", "add", SUBNET, "via", &there, "dev", link])).ok();
    }

    /// Compose, told where its engine is.
    fn client(&self) -> Command {
        let mut compose = compose();
        compose.args(["--project-name", "agentsecrets"]).current_dir(self.engine.path(""));
        compose.env("HOME", self.engine.path(""));
        compose.env("DOCKER_HOST", format!("unix://{}", self.engine.path("docker.sock").display()));
        compose
    }

    fn compose(&self) -> Command {
        let mut compose = self.client();
        compose.args(["-f", "compose.yaml", "-f", "added.yaml"]);
        let version =
            made(".oci.tar").file_name().unwrap().to_string_lossy().split('-').nth(1).unwrap().to_owned();
        compose.env("AGENTSECRETS_IMAGE", format!("agentsecrets:{version}"));
        compose.env("AGENT_IMAGE", "acme/agent:1");
        compose.env("AGENTSECRETS_SLICE", &self.engine.compose.services["agentsecrets"].cgroup_parent);
        compose
    }

    /// Starts all services, and waits until they are healthy.
    fn up(&self) {
        finish(self.compose().args(["up", "--detach", "--wait", "--wait-timeout", "60"])).ok();
    }

    /// What curl is answered in the container of a service, with the placeholder as its bearer token.
    fn curl(&self, service: &str) -> Outcome {
        let header = "Authorization: Bearer AS_SECRET_STRIPE_KEY";
        let url = self.engine.url("/echo");
        finish(self.compose().args(["exec", "-T", service, "curl", "-sS", "-m", "20", "-H", header, &url]))
    }

    /// Id and image of the one container of a service.
    fn container(&self, service: &str) -> (String, String) {
        let id = finish(self.compose().args(["ps", "--no-trunc", "--quiet", service])).ok().trim().to_owned();
        let inspected: Value = self.api(&[&format!("/containers/{id}/json")]).json();
        (id, inspected["Image"].as_str().unwrap().to_owned())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // Nothing here may panic: a test that failed is ending already.
        finish(self.compose().args(["down", "--volumes", "--timeout", "1"]));
        let daemon = fs::read_to_string(self.engine.path("dockerd.pid"));
        if let Some(pid) = daemon.ok().and_then(|pid| pid.trim().parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.daemon.wait();
    }
}

#[test]
#[ignore = "starts Docker's own engine, and needs what `cargo xtask dist` makes: with --full"]
fn docker_compose_up_starts_a_guarded_agent_that_is_known_by_its_image() {
    let engine = Engine::new();
    let docker = Docker::start(&engine);
    docker.loads();
    let allow = engine.allow("secrets: [STRIPE_KEY]");
    engine.policy(&format!("  - name: coder\n    match: {{ image: 'acme/agent:1' }}\n    allow:\n{allow}"));
    docker.writes_project();
    docker.up();
    let spent = |turn: usize| {
        let answer = docker.curl("agent").ok();
        assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
        let received = engine.api.received();
        assert_eq!(received.len(), turn);
        assert_eq!(received.last().unwrap().header("authorization"), format!("Bearer {SECRET}"));
    };
    spent(1);
    let refused = docker.curl("other").stdout;
    assert!(
        refused.contains("capability_denied") && refused.contains(&docker.container("other").0),
        "{refused}"
    );
    let record =
        ["exec", "-T", "--user", "65532:65532", "agentsecrets", "/agentsecrets", "audit", "list", "--json"];
    let records = finish(docker.compose().args(record)).ok();
    let first: Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    let (id, image) = docker.container("agent");
    let process = &first["process"];
    assert_eq!((&process["container"], &process["image_id"]), (&id.clone().into(), &image.into()));
    assert_eq!(process["image"], "docker.io/acme/agent:1");
    // Killed, the service leaves the agent offline; started again, it finds it where it was.
    finish(docker.compose().args(["kill", "agentsecrets"])).ok();
    assert_ne!(docker.curl("agent").code, Some(0));
    docker.up();
    spent(2);
    finish(docker.compose().args(["restart", "agentsecrets"])).ok();
    docker.up();
    spent(3);
    assert_eq!(docker.container("agent").0, id, "the agent's container is the one that it was");
    assert!(engine.left("AS_SECRET").is_empty() && engine.left(SECRET).is_empty());
}

/// What stands for the base image of the Dockerfile: a shell, what that calls, and a compiler that has the program of
/// `image` already.
fn base(root: &Path, image: &Path) {
    let add = |path: &str, bytes: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for program in ["cp", "install", "mkdir", "sed", "sh"] {
        let path = format!("/usr/bin/{program}");
        add(&path[1..], &fs::read(&path).unwrap(), 0o755);
        let needed = finish(command("ldd").arg(&path)).ok();
        for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            add(&library[1..], &fs::read(library).unwrap(), 0o755);
        }
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    let roots = fs::read(image.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    add("etc/ssl/certs/ca-certificates.crt", &roots, 0o644);
    add("program", &fs::read(image.join("agentsecrets")).unwrap(), 0o755);
    add("usr/bin/apt-get", b"#!/bin/sh\n", 0o755);
    add("usr/bin/rustc", b"#!/bin/sh\necho host: x86_64-unknown-linux-gnu\n", 0o755);
    let cargo = "#!/bin/sh\nset -e\n\
        [ \"$*\" = 'build --release --locked -p agentsecrets --target x86_64-unknown-linux-gnu' ]\n\
        [ -f Cargo.lock ] && [ -f agentsecrets/Cargo.toml ] && [ -f agentsecrets-ebpf/Cargo.toml ] && [ ! -e target ]\n\
        mkdir -p target/x86_64-unknown-linux-gnu/release\ncp /program target/x86_64-unknown-linux-gnu/release/agentsecrets\n";
    add("usr/bin/cargo", cargo.as_bytes(), 0o755);
}

/// Every file and folder below `root`: its mode, its owner, and what is in it.
fn files(root: &Path) -> BTreeMap<String, (u32, u32, u32, Vec<u8>)> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(path) = waiting.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let bytes = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if about.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.insert(name, (about.mode(), about.uid(), about.gid(), bytes));
    }
    found
}

#[test]
#[ignore = "starts Docker's own engine, and needs what `cargo xtask dist` makes: with --full"]
fn the_dockerfile_makes_the_same_image_where_a_compiler_makes_the_same_program() {
    let engine = Engine::new();
    let docker = Docker::start(&engine);
    let folder = tempfile::tempdir().unwrap();
    let image = unpacked(&made(".oci.tar"), folder.path());
    base(&engine.path("base"), &image);
    docker.imports(&engine.path("base"), "rust", "1.95-bookworm");
    engine.write(
        "build.yaml",
        &format!(
            "services:\n  built:\n    image: built:1\n    build: {{ context: {:?}, dockerfile: deploy/Dockerfile, network: none }}\n",
            file("")
        ),
    );
    finish(docker.client().args(["-f", "build.yaml", "build"])).ok();
    let described =
        ["-H", "Content-Type: application/json", "-d", "{\"Image\":\"built:1\"}", "/containers/create"];
    let id = docker.api(&described).json()["Id"].as_str().unwrap().to_owned();
    let (archive, root) = (folder.path().join("built.tar"), folder.path().join("built"));
    docker.api(&["-o", archive.to_str().unwrap(), &format!("/containers/{id}/export")]).ok();
    fs::create_dir(&root).unwrap();
    finish(command("tar").arg("-xpf").arg(archive).arg("-C").arg(&root)).ok();
    let (mut built, mut expected) = (files(&root), files(&image));
    // The notices are no part of it; what an engine puts into a container that it makes is none of the image.
    expected.retain(|path, _| !path.starts_with("usr"));
    let engines = [
        ".dockerenv",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "",
    ];
    built.retain(|path, _| !engines.contains(&path.as_str()));
    expected.remove("");
    assert_eq!(built.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, file) in &expected {
        assert!(
            built[path] == *file,
            "{path}: {:?} and {:?}",
            (built[path].0, built[path].1),
            (file.0, file.1)
        );
    }
}
