//! The part of a container engine that these tests need: it has one network for a service and its agents, as
//! `network_mode: service:` makes it, with a server on the other side of a wire that is watched.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bundle::{Placed, configuration};
use super::compose::{Compose, SecretFile, Service};
use super::deploy;
use crate::support::capture::{Capture, Packet};
use crate::support::certificate::Authority;
use crate::support::home::AGENTSECRETS;
use crate::support::netns::Netns;
use crate::support::process::{Outcome, command, finish};
use crate::support::upstream::{Options, Upstream};

/// The secret of the compose file.
pub(crate) const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
/// As whom the service serves, as the image says.
const SERVES: u32 = 65532;

/// One copy of the compose file's folder, and where its containers run.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    pub(crate) netns: Netns,
    capture: Capture,
    pub(crate) api: Upstream,
    authority: Authority,
    pub(crate) compose: Compose,
    /// The unpacked image of the service; none for what stands for it.
    pub(crate) image: Option<PathBuf>,
}

/// A running container; dropping it kills and removes it.
pub(crate) struct Container<'a> {
    engine: &'a Engine,
    pub(crate) id: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Engine {
    /// As a user has it who copied the folder and chose an image.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("agentsecrets-containers-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let netns = Netns::new();
        // Whatever leaves comes by the wire's end.
        let via = netns.here4().to_string();
        finish(command("ip").args(["-n", netns.name(), "route", "add", "default", "via", &via])).ok();
        let authority = Authority::new();
        let api = Upstream::start(Options::https(&authority, &["api.test"]).at((netns.here4(), 0)));
        let slice = format!("agentsecretstest{}.slice", netns.number());
        let variables =
            [("AGENTSECRETS_SLICE", slice.as_str()), ("AGENT_IMAGE", "agent"), ("AGENT_USER", "1000:1000")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let compose = Compose::read(&BTreeMap::from(variables));
        let capture = Capture::start(&netns);
        let engine = Self { folder, netns, capture, api, authority, compose, image: None };
        engine.write("secrets/STRIPE_KEY", SECRET);
        engine.write(
            "agentsecrets/config.yaml",
            &fs::read_to_string(deploy("agentsecrets/config.yaml")).unwrap(),
        );
        engine.write("hosts", &format!("127.0.0.1 localhost\n{} api.test\n", engine.netns.here4()));
        engine.write("ca.pem", &engine.authority.pem());
        for folder in ["workspace", "volumes/public", "volumes/state"] {
            fs::create_dir_all(engine.path(folder)).unwrap();
        }
        // A new volume takes owner and mode from the image's folder.
        let state = engine.path("volumes/state");
        chown(&state, Some(SERVES), Some(SERVES)).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        chown(engine.path("workspace"), Some(1000), Some(1000)).unwrap();
        engine.rule("secrets: [STRIPE_KEY]");
        engine
    }

    /// A file or folder of the copy.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Puts a policy in force whose only rule allows the server, with `more` keys.
    pub(crate) fn rule(&self, more: &str) {
        self.policy(&format!("  - name: coder\n    allow:\n{}", self.allow(more)));
    }

    /// Puts a policy with these agents in force.
    pub(crate) fn policy(&self, agents: &str) {
        self.write("agentsecrets/policy.yaml", &format!("version: 1\nagents:\n{agents}"));
    }

    /// A rule that allows the server.
    pub(crate) fn allow(&self, more: &str) -> String {
        let port = self.api.port();
        format!("      - host: api.test\n        ports: [{port}]\n        private: true\n        {more}\n")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    /// The packets with `word` that left the containers' network; what stays on its loopback device is seen too,
    /// and left out.
    pub(crate) fn left(&self, word: &str) -> Vec<Packet> {
        let stays = |packet: &Packet| packet.destination.is_loopback() || packet.source.is_loopback();
        let ours = [IpAddr::from(self.netns.here4()), self.netns.here6().into()];
        let mut packets = self.capture.packets();
        let holds = |packet: &Packet| packet.payload.windows(word.len()).any(|part| part == word.as_bytes());
        packets.retain(|packet| !stays(packet) && !ours.contains(&packet.source) && holds(packet));
        packets
    }

    /// The packets toward `address`, whatever they carry.
    pub(crate) fn left_for(&self, address: IpAddr) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| packet.destination == address);
        packets
    }

    /// The folder of the cgroup that holds the containers.
    pub(crate) fn slice(&self) -> PathBuf {
        let parent = &self.compose.services["agentsecrets"].cgroup_parent;
        agentsecrets::connection::ebpf::cgroup2_mount().unwrap().join(parent)
    }

    /// The folders of pins that are there.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        let slice = format!("/{}", self.compose.services["agentsecrets"].cgroup_parent);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, slice.as_bytes());
        let name: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let all = fs::read_dir(Path::new("/sys/fs/bpf/agentsecrets").join(name)).into_iter().flatten();
        let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    /// Starts the service, and waits until it is healthy.
    pub(crate) fn service(&self) -> Container<'_> {
        let service = self.unready(&self.compose.services["agentsecrets"]);
        service.wait_until_healthy();
        service
    }

    /// Starts the service as `service` says, and does not wait.
    pub(crate) fn unready(&self, service: &Service) -> Container<'_> {
        let words = ["/agentsecrets".to_owned()].into_iter().chain(service.command.iter().cloned());
        self.start(service, words.collect(), None)
    }

    /// Starts the agent, which waits for a line and ends; calls are made beside it, in the same container.
    pub(crate) fn agent(&self) -> Container<'_> {
        self.agent_as(&self.compose.services["agent"], None)
    }

    /// Starts an agent as `service` says, in the pid namespace of another if one is given.
    pub(crate) fn agent_as(&self, service: &Service, pids: Option<&Container<'_>>) -> Container<'_> {
        let words = ["/bin/sh", "-c", "echo started; read line"].map(str::to_owned).to_vec();
        let mut agent = self.start(service, words, pids);
        assert_eq!(agent.line(), "started");
        agent
    }

    /// Starts a container of `service` with another command, which says that it has started.
    pub(crate) fn start_with(&self, service: &Service, words: &[&str]) -> Container<'_> {
        let mut started = self.start(service, words.iter().map(|&word| word.to_owned()).collect(), None);
        assert_eq!(started.line(), "started");
        started
    }

    /// Mounts one more secret's file in the service, as a line of the compose file would.
    pub(crate) fn add_secret(&mut self, name: &str) {
        let file = format!("./secrets/{name}");
        self.compose.secrets.insert(name.to_owned(), SecretFile { file });
        self.compose.services.get_mut("agentsecrets").unwrap().secrets.push(name.to_owned());
    }

    fn start(&self, service: &Service, words: Vec<String>, pids: Option<&Container<'_>>) -> Container<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = u64::from(std::process::id()) << 32 | u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let id = format!("{number:016x}{}", "0123456789abcdef".repeat(3));
        let bundle = self.path(&format!("bundles/{id}"));
        let root = bundle.join("root");
        let image = self.image.as_ref().filter(|_| service.image != "agent");
        match image {
            Some(image) => {
                fs::create_dir_all(&bundle).unwrap();
                finish(command("cp").arg("-a").arg(image).arg(&root)).ok();
            }
            None => Self::stand_in(&root),
        }
        // Ours stands for that of the container which holds it.
        assert_eq!(service.network_mode.as_deref(), Some("service:network"));
        let said: Value = serde_json::from_str(&fs::read_to_string(deploy("image.json")).unwrap()).unwrap();
        let of_image = said["Env"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
        let path = "PATH=/usr/bin:/bin".to_owned();
        let mut environment: Vec<String> =
            if service.image == "agent" { vec![path] } else { of_image.collect() };
        environment.push("AGENTSECRETS_UPSTREAM_CA=/test/ca.pem".to_owned());
        environment.extend(service.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let placed = Placed {
            id: &id,
            root: &root,
            netns: PathBuf::from(format!("/run/netns/{}", self.netns.name())),
            mounts: self.mounts(service, image.is_some()),
            command: words,
            environment,
            pids: pids.map(|other| PathBuf::from(format!("/proc/{}/ns/pid", other.pid()))),
        };
        let configuration = configuration(service, &placed);
        fs::write(bundle.join("config.json"), configuration.to_string()).unwrap();
        let errors = fs::File::create(bundle.join("stderr")).unwrap();
        let mut runc = self.runc(&["run", "--bundle"]);
        runc.arg(&bundle).arg(&id).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = runc.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Container { engine: self, id, child, input, output }
    }

    /// What stands for an image: the machine's own programs, and ours.
    pub(crate) fn stand_in(root: &Path) {
        for folder in
            ["usr", "etc/ssl", "proc", "sys", "dev", "tmp", "run", "host", "test", "var/lib", "workspace"]
        {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        for name in ["agentsecrets", "etc/hosts", "etc/resolv.conf", "test/ca.pem"] {
            fs::write(root.join(name), "").unwrap();
        }
    }

    /// The service's volumes and secrets, and what stands for the image.
    fn mounts(&self, service: &Service, is_image: bool) -> Vec<(PathBuf, String, bool)> {
        let machines: [(PathBuf, _); 3] = [
            ("/usr".into(), "/usr"),
            ("/etc/ssl".into(), "/etc/ssl"),
            (AGENTSECRETS.into(), "/agentsecrets"),
        ];
        let ours = [(self.path("hosts"), "/etc/hosts"), (self.path("ca.pem"), "/test/ca.pem")];
        let mounts = machines.into_iter().filter(|_| !is_image).chain(ours);
        let mut mounts: Vec<(PathBuf, String, bool)> =
            mounts.map(|(source, at)| (source, at.to_owned(), true)).collect();
        for volume in &service.volumes {
            let mut parts = volume.split(':');
            let (source, at) = (parts.next().unwrap(), parts.next().unwrap());
            let read_only = parts.next().inspect(|how| assert_eq!(*how, "ro")).is_some();
            let source = match source.strip_prefix("./") {
                Some(inside) => self.path(inside),
                None if source.starts_with('/') => PathBuf::from(source),
                None => {
                    assert!(self.compose.volumes.contains_key(source));
                    self.path("volumes").join(source)
                }
            };
            // An engine makes what is missing of a path on the host.
            fs::create_dir_all(&source).unwrap();
            mounts.push((source, at.to_owned(), read_only));
        }
        for secret in &service.secrets {
            let source = self.path(self.compose.secrets[secret].file.strip_prefix("./").unwrap());
            mounts.push((source, format!("/run/secrets/{secret}"), true));
        }
        mounts
    }

    /// `runc`, as on a machine whose cgroups are of version 2 alone.
    fn runc(&self, arguments: &[&str]) -> Command {
        let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
        let mut runc = command("unshare");
        runc.args(["--mount", "sh", "-c", script, "sh", "runc", "--root"]).arg(self.path("runc"));
        runc.args(arguments);
        runc
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for pins in self.pins() {
            let _ = agentsecrets::connection::ebpf::detach(&pins);
            let _ = fs::remove_dir(pins.parent().unwrap());
        }
        let _ = fs::remove_dir(self.slice());
    }
}

impl Container<'_> {
    /// Runs a program in the container to its end.
    pub(crate) fn exec<S: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Outcome {
        let mut runc = self.engine.runc(&["exec"]);
        finish(runc.arg(&self.id).args(words))
    }

    /// The same, as another user.
    pub(crate) fn exec_as(&self, user: &str, words: &[&str]) -> Outcome {
        let mut runc = self.engine.runc(&["exec", "--user", user]);
        finish(runc.arg(&self.id).args(words))
    }

    /// A program in the container, to be started by the test.
    pub(crate) fn beside(&self, words: &[&str]) -> Command {
        let mut runc = self.engine.runc(&["exec"]);
        runc.arg(&self.id).args(words);
        runc
    }

    /// curl, with the placeholder as its bearer token.
    pub(crate) fn curl(&self, more: &[&str], url: &str) -> Outcome {
        let curl = ["curl", "-sS", "-m", "20", "-H", "Authorization: Bearer AS_SECRET_STRIPE_KEY"];
        self.exec(curl.iter().chain(more).chain([&url]))
    }

    /// The status code that curl is answered with.
    #[track_caller]
    pub(crate) fn status(&self, url: &str) -> String {
        let outcome = self.curl(&["-o", "/dev/null", "-w", "%{http_code}"], url);
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        outcome.stdout
    }

    /// The next line that its first process prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the container ended: {}", self.errors());
        line.trim_end().to_owned()
    }

    /// What its first process said on standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.engine.path(&format!("bundles/{}/stderr", self.id))).unwrap()
    }

    /// Lets the health check of its service pass, which must come to pass soon.
    pub(crate) fn wait_until_healthy(&self) {
        let check = &self.engine.compose.services["agentsecrets"].healthcheck.as_ref().unwrap().test;
        assert_eq!(check[0], "CMD");
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let outcome = self.exec(&check[1..]);
            if outcome.code == Some(0) {
                return;
            }
            assert!(Instant::now() < end, "not healthy: {outcome:?}; {}", self.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The service's records, oldest first.
    #[track_caller]
    pub(crate) fn audit(&self) -> Vec<Value> {
        let user = format!("{SERVES}:{SERVES}");
        let lines = self.exec_as(&user, &["/agentsecrets", "audit", "list", "--json"]).ok();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The host's id of its first process.
    pub(crate) fn pid(&self) -> u32 {
        let state = finish(self.engine.runc(&["state"]).arg(&self.id)).json();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// The id of its cgroup.
    pub(crate) fn cgroup(&self) -> u64 {
        fs::metadata(self.engine.slice().join(format!("docker-{}.scope", self.id))).unwrap().ino()
    }

    /// Asks its first process to end, and says how it did.
    pub(crate) fn stop(mut self) -> Option<i32> {
        finish(self.engine.runc(&["kill"]).args([&self.id, "TERM"])).ok();
        self.child.wait().unwrap().code()
    }

    /// Waits until its first process has failed, and gives what that said.
    pub(crate) fn end(mut self) -> String {
        assert_eq!(self.child.wait().unwrap().code(), Some(1), "{}", self.errors());
        self.errors()
    }

    /// Kills it.
    pub(crate) fn kill(self) {}

    /// Tells its first process to end, and waits for it.
    pub(crate) fn finish(mut self) {
        let _ = self.input.take().unwrap().write_all(b"end\n");
        self.child.wait().unwrap();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Nothing here may panic: a test that failed is ending already.
        let mut runc = self.engine.runc(&["delete", "--force"]);
        let _ = runc.arg(&self.id).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.engine.path(&format!("bundles/{}/root", self.id)));
    }
}
