//! The compose file in real use: Compose's client, Docker's engine, and the image of `cargo xtask dist`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dist::{artifact, unpack_image};
use super::testbed::{SECRET, Testbed};
use super::{Engine, compose, deploy_file, workspace_file};
use crate::support::process::{Outcome, command, run};

const SUBNET: &str = "172.31.77.0/24";

/// curl's arguments to send an archive.
const TAR: [&str; 5] = ["-X", "POST", "-H", "Content-Type: application/x-tar", "--data-binary"];

/// A Compose project in the folder of `engine`, and a Docker engine whose networks are in its namespace.
struct Docker<'a> {
    engine: &'a Engine,
    daemon: Child,
    /// The program in the agents' containers.
    agent: &'static str,
}

impl<'a> Docker<'a> {
    fn start(engine: &'a Engine) -> Self {
        let log = fs::File::create(engine.path("dockerd.log")).unwrap();
        let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
        let mut daemon = command("nsenter");
        daemon.arg(format!("--net=/run/netns/{}", engine.netns.name()));
        daemon.args(["unshare", "--mount", "sh", "-c", script, "sh"]);
        daemon.arg(workspace_file("target/test-clients/docker/usr/sbin/dockerd"));
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

    /// Calls the engine's API with curl arguments.
    fn api(&self, words: &[&str]) -> Outcome {
        let (path, more) = words.split_last().unwrap();
        let mut curl = command("curl");
        curl.args(["-sS", "--fail-with-body", "--unix-socket"])
            .arg(self.engine.path("docker.sock"))
            .args(more);
        run(curl.arg(format!("http://engine{path}")))
    }

    /// Loads the built image, and two agent images with this machine's programs.
    fn load_images(&self) {
        let archive = format!("@{}", artifact(".oci.tar").display());
        let output = self.api(&[&TAR[..], &[&archive, "/images/load"]].concat()).ok();
        assert!(output.contains("Loaded image: agentsecrets:"), "{output}");
        Testbed::stand_in_image(&self.engine.path("agent"));
        for name in ["acme/agent", "acme/other"] {
            self.import_image(&self.engine.path("agent"), name, "1");
        }
    }

    /// Imports an image from the files in `root`.
    fn import_image(&self, root: &Path, name: &str, tag: &str) {
        let archive = root.with_extension("tar");
        run(command("tar").arg("-cf").arg(&archive).arg("-C").arg(root).arg(".")).ok();
        let archive = format!("@{}", archive.display());
        let path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}&changes=ENV%20PATH=/usr/bin");
        self.api(&[&TAR[..], &[&archive, &path]].concat()).ok();
    }

    /// Writes the compose file with the tests' additions.
    fn write_project(&self) {
        fs::copy(deploy_file("compose.yaml"), self.engine.path("compose.yaml")).unwrap();
        let server = self.engine.netns.local4();
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
        // A route back, as for any network of an engine without address translation.
        let (link, there) = (self.engine.netns.link(), self.engine.netns.peer4().to_string());
        run(command("ip").args(["route", "add", SUBNET, "via", &there, "dev", link])).ok();
    }

    /// Compose with the address of its engine.
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
            artifact(".oci.tar").file_name().unwrap().to_string_lossy().split('-').nth(1).unwrap().to_owned();
        compose.env("AGENTSECRETS_IMAGE", format!("agentsecrets:{version}"));
        compose.env("AGENT_IMAGE", "acme/agent:1");
        compose.env("AGENTSECRETS_SLICE", &self.engine.compose.services["agentsecrets"].cgroup_parent);
        compose
    }

    /// Starts all services and waits until they are healthy.
    fn up(&self) {
        run(self.compose().args(["up", "--detach", "--wait", "--wait-timeout", "60"])).ok();
    }

    /// Runs curl in a service's container with the placeholder as bearer token.
    fn curl(&self, service: &str) -> Outcome {
        let header = "Authorization: Bearer AS_SECRET_STRIPE_KEY";
        let url = self.engine.url("/echo");
        run(self.compose().args(["exec", "-T", service, "curl", "-sS", "-m", "20", "-H", header, &url]))
    }

    /// Id and image of a service's only container.
    fn container(&self, service: &str) -> (String, String) {
        let id = run(self.compose().args(["ps", "--no-trunc", "--quiet", service])).ok().trim().to_owned();
        let inspected: Value = self.api(&[&format!("/containers/{id}/json")]).json();
        (id, inspected["Image"].as_str().unwrap().to_owned())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // No panic here: the test may already be failing.
        run(self.compose().args(["down", "--volumes", "--timeout", "1"]));
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
fn docker_compose_agent_is_identified_by_image() {
    let engine = Engine::new();
    let docker = Docker::start(&engine);
    docker.load_images();
    let allow = engine.allow("secrets: [STRIPE_KEY]");
    engine.policy(&format!("  - name: coder\n    match: {{ image: 'acme/agent:1' }}\n    allow:\n{allow}"));
    docker.write_project();
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
    let records = run(docker.compose().args(record)).ok();
    let first: Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    let (id, image) = docker.container("agent");
    let process = &first["process"];
    assert_eq!((&process["container"], &process["image_id"]), (&id.clone().into(), &image.into()));
    assert_eq!(process["image"], "docker.io/acme/agent:1");
    // With the service killed the agent is offline; the restarted service finds the agent.
    run(docker.compose().args(["kill", "agentsecrets"])).ok();
    assert_ne!(docker.curl("agent").code, Some(0));
    docker.up();
    spent(2);
    run(docker.compose().args(["restart", "agentsecrets"])).ok();
    docker.up();
    spent(3);
    assert_eq!(docker.container("agent").0, id, "the agent's container is the one that it was");
    assert!(engine.packets_with("AS_SECRET").is_empty() && engine.packets_with(SECRET).is_empty());
}

/// A stand-in for the Dockerfile's base image: a shell, its dependencies, and a "compiler" that contains the
/// program of `image`.
fn write_base_image(root: &Path, image: &Path) {
    let add = |path: &str, bytes: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for program in ["cp", "install", "mkdir", "sed", "sh"] {
        let path = format!("/usr/bin/{program}");
        add(&path[1..], &fs::read(&path).unwrap(), 0o755);
        let needed = run(command("ldd").arg(&path)).ok();
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

/// Mode, owner and content of every file and folder below `root`.
fn file_tree(root: &Path) -> BTreeMap<String, (u32, u32, u32, Vec<u8>)> {
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
fn dockerfile_build_equals_dist_image() {
    let engine = Engine::new();
    let docker = Docker::start(&engine);
    let folder = tempfile::tempdir().unwrap();
    let image = unpack_image(&artifact(".oci.tar"), folder.path());
    write_base_image(&engine.path("base"), &image);
    docker.import_image(&engine.path("base"), "rust", "1.95-bookworm");
    engine.write(
        "build.yaml",
        &format!(
            "services:\n  built:\n    image: built:1\n    build: {{ context: {:?}, dockerfile: deploy/Dockerfile, network: none }}\n",
            workspace_file("")
        ),
    );
    run(docker.client().args(["-f", "build.yaml", "build"])).ok();
    let described =
        ["-H", "Content-Type: application/json", "-d", "{\"Image\":\"built:1\"}", "/containers/create"];
    let id = docker.api(&described).json()["Id"].as_str().unwrap().to_owned();
    let (archive, root) = (folder.path().join("built.tar"), folder.path().join("built"));
    docker.api(&["-o", archive.to_str().unwrap(), &format!("/containers/{id}/export")]).ok();
    fs::create_dir(&root).unwrap();
    run(command("tar").arg("-xpf").arg(archive).arg("-C").arg(&root)).ok();
    let (mut built, mut expected) = (file_tree(&root), file_tree(&image));
    // Notices and files that an engine adds to a container are not compared.
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
