//! The testbed for containers of any engine: one network, a server behind a captured veth pair, and `runc`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agentsecrets::intercept::ebpf;
use serde_json::Value;

use super::bundle::{Bundle, configuration};
use super::deploy_file;
use crate::support::capture::{Capture, Packet};
use crate::support::certificate::Authority;
use crate::support::home::AGENTSECRETS;
use crate::support::netns::Netns;
use crate::support::process::{Outcome, command, run, wait_until};
use crate::support::upstream::{Options, Upstream};

pub(crate) const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
/// The secret of another agent.
pub(crate) const OTHER_SECRET: &str = "sk_test_9dPqR7sT2uVwX4yZ6aBcD8eF";
/// Prints that it has started, and ends when it reads a line.
pub(crate) const IDLE_COMMAND: [&str; 3] = ["/bin/sh", "-c", "echo started; read line"];

/// One network and its processes.
pub(crate) struct Testbed {
    folder: tempfile::TempDir,
    pub(crate) netns: Netns,
    capture: Capture,
    pub(crate) api: Upstream,
    authority: Authority,
    /// The service's uid.
    serves: u32,
    /// The unpacked image of the service; none for the stand-in.
    pub(crate) image: Option<PathBuf>,
}

/// A running container; dropping it kills and removes it.
pub(crate) struct Container<'a> {
    site: &'a Testbed,
    pub(crate) id: String,
    cgroup: String,
    check: Vec<String>,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

/// A new container id.
pub(crate) fn new_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = u64::from(std::process::id()) << 32 | u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{number:016x}{}", "0123456789abcdef".repeat(3))
}

impl Testbed {
    /// An empty testbed for a service with the uid `serves`.
    pub(crate) fn new(serves: u32) -> Self {
        // A container host has it mounted.
        ebpf::mount_bpffs(Path::new("/sys/fs/bpf")).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("agentsecrets-containers-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let netns = Netns::new();
        // All egress goes through the veth pair.
        let via = netns.local4().to_string();
        run(command("ip").args(["-n", netns.name(), "route", "add", "default", "via", &via])).ok();
        let authority = Authority::new();
        let api = Upstream::start(Options::https(&authority, &["api.test"]).at((netns.local4(), 0)));
        let capture = Capture::start(&netns);
        let site = Self { folder, netns, capture, api, authority, serves, image: None };
        site.write("hosts", &format!("127.0.0.1 localhost\n{} api.test\n", site.netns.local4()));
        site.write("ca.pem", &site.authority.pem());
        site
    }

    /// A path in the testbed's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    /// The containers' network namespace.
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.netns.name()))
    }

    /// Packets with `word` that left the containers' network, without its loopback traffic.
    pub(crate) fn packets_with(&self, word: &str) -> Vec<Packet> {
        let stays = |packet: &Packet| packet.destination.is_loopback() || packet.source.is_loopback();
        let ours = [IpAddr::from(self.netns.local4()), self.netns.local6().into()];
        let mut packets = self.capture.packets();
        let holds = |packet: &Packet| packet.payload.windows(word.len()).any(|part| part == word.as_bytes());
        packets.retain(|packet| !stays(packet) && !ours.contains(&packet.source) && holds(packet));
        packets
    }

    /// Packets to `address`.
    pub(crate) fn packets_to(&self, address: IpAddr) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| packet.destination == address);
        packets
    }

    /// The environment of a container: of the service's image, or of an agent's.
    pub(crate) fn environment(&self, is_ours: bool) -> Vec<String> {
        let output: Value =
            serde_json::from_str(&fs::read_to_string(deploy_file("image.json")).unwrap()).unwrap();
        let of_image = output["Env"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
        let of_agent = vec!["PATH=/usr/bin:/bin".to_owned()];
        let mut environment: Vec<String> = if is_ours { of_image.collect() } else { of_agent };
        environment.push("AGENTSECRETS_UPSTREAM_CA=/test/ca.pem".to_owned());
        environment
    }

    pub(crate) fn start(&self, mut bundle: Bundle) -> Container<'_> {
        let folder = self.path(&format!("bundles/{}", bundle.id));
        let root = folder.join("root");
        let ours = [(self.path("hosts"), "/etc/hosts"), (self.path("ca.pem"), "/test/ca.pem")];
        let mut mounts: Vec<_> = ours.map(|(source, at)| (source, at.to_owned(), true)).into();
        match self.image.as_ref().filter(|_| bundle.is_ours) {
            Some(image) => {
                fs::create_dir_all(&folder).unwrap();
                run(command("cp").arg("-a").arg(image).arg(&root)).ok();
            }
            None => {
                Self::stand_in_image(&root);
                let machines = [("/usr", "/usr"), ("/etc/ssl", "/etc/ssl"), (AGENTSECRETS, "/agentsecrets")];
                mounts.extend(machines.map(|(source, at)| (source.into(), at.to_owned(), true)));
            }
        }
        mounts.append(&mut bundle.mounts);
        bundle.mounts = mounts;
        fs::write(folder.join("config.json"), configuration(&bundle, &root).to_string()).unwrap();
        let errors = fs::File::create(folder.join("stderr")).unwrap();
        let mut runc = self.runc(&["run", "--bundle"]);
        runc.arg(&folder).arg(&bundle.id).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = runc.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let Bundle { id, cgroup, check, .. } = bundle;
        Container { site: self, id, cgroup, check, child, input, output }
    }

    /// A stand-in for an image: this machine's programs, and ours.
    pub(crate) fn stand_in_image(root: &Path) {
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

    /// `runc` on a machine with cgroup v2 only.
    fn runc(&self, arguments: &[&str]) -> Command {
        let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
        let mut runc = command("unshare");
        runc.args(["--mount", "sh", "-c", script, "sh", "runc", "--root"]).arg(self.path("runc"));
        runc.args(arguments);
        runc
    }
}

/// Asserts that the process of this status file has the uid `uid`, no privilege and no way to gain one.
#[track_caller]
pub(crate) fn assert_unprivileged(status: &str, uid: u32) {
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(of("Uid:"), [uid.to_string().as_str(); 4].join("\t"), "{status}");
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(of(set), "0000000000000000", "{status}");
    }
    assert_eq!((of("NoNewPrivs:"), of("Seccomp:")), ("1", "2"), "{status}");
}

pub(crate) fn cgroup(path: &str) -> PathBuf {
    agentsecrets::intercept::ebpf::cgroup2_mount().unwrap().join(path.trim_start_matches('/'))
}

/// The pin folders of a cgroup's hooks.
pub(crate) fn pins(cgroup: &str) -> Vec<PathBuf> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, cgroup.as_bytes());
    let name: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let all = fs::read_dir(Path::new("/sys/fs/bpf/agentsecrets").join(name)).into_iter().flatten();
    let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Renames a pin folder so that its programs look like another version.
pub(crate) fn mark_as_other_version(pins: &Path) {
    let name = pins.file_name().unwrap().to_str().unwrap();
    let mut parts: Vec<&str> = name.split('-').collect();
    parts[1] = "0000000000000000";
    fs::rename(pins, pins.with_file_name(parts.join("-"))).unwrap();
}

/// Detaches the hooks of a cgroup and removes it.
pub(crate) fn remove_cgroup(path: &str) {
    for pins in pins(path) {
        let _ = agentsecrets::intercept::ebpf::detach(&pins);
        let _ = fs::remove_dir(pins.parent().unwrap());
    }
    let _ = fs::remove_dir(cgroup(path));
}

impl Container<'_> {
    /// Runs a program in the container.
    pub(crate) fn exec<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Outcome {
        let mut runc = self.site.runc(&["exec"]);
        run(runc.arg(&self.id).args(words))
    }

    /// Runs a program in the container as another user.
    pub(crate) fn exec_as(&self, user: &str, words: &[&str]) -> Outcome {
        let mut runc = self.site.runc(&["exec", "--user", user]);
        run(runc.arg(&self.id).args(words))
    }

    /// A command that runs in the container.
    pub(crate) fn exec_command(&self, words: &[&str]) -> Command {
        let mut runc = self.site.runc(&["exec"]);
        runc.arg(&self.id).args(words);
        runc
    }

    /// curl with the placeholder as bearer token.
    pub(crate) fn curl(&self, more: &[&str], url: &str) -> Outcome {
        let curl = ["curl", "-sS", "-m", "20", "-H", "Authorization: Bearer AS_SECRET_STRIPE_KEY"];
        self.exec(curl.iter().chain(more).chain([&url]))
    }

    /// curl's status code.
    #[track_caller]
    pub(crate) fn status(&self, url: &str) -> String {
        let outcome = self.curl(&["-o", "/dev/null", "-w", "%{http_code}"], url);
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        outcome.stdout
    }

    /// The next line of its first process.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the container ended: {}", self.errors());
        line.trim_end().to_owned()
    }

    /// The remaining output of its first process.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }

    /// The standard error of its first process.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.site.path(&format!("bundles/{}/stderr", self.id))).unwrap()
    }

    /// Waits until the health check passes.
    pub(crate) fn wait_until_healthy(&self) {
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let outcome = self.exec(&self.check);
            if outcome.code == Some(0) {
                return;
            }
            assert!(Instant::now() < end, "not healthy: {outcome:?}; {}", self.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The audit records, oldest first.
    #[track_caller]
    pub(crate) fn audit(&self) -> Vec<Value> {
        let user = format!("{0}:{0}", self.site.serves);
        self.exec_as(&user, &["/agentsecrets", "audit", "list", "--json"]).json_lines()
    }

    /// The host pid of its first process.
    pub(crate) fn pid(&self) -> u32 {
        let state = run(self.site.runc(&["state"]).arg(&self.id)).json();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// The status files of its processes. A health check may appear for a moment.
    pub(crate) fn processes(&self) -> Vec<String> {
        let pids = fs::read_to_string(cgroup(&self.cgroup).join("cgroup.procs")).unwrap();
        let statuses = pids.lines().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        statuses.filter(|status| !status.contains("\nState:\tZ")).collect()
    }

    /// The cgroup id.
    pub(crate) fn cgroup(&self) -> u64 {
        fs::metadata(cgroup(&self.cgroup)).unwrap().ino()
    }

    /// Sends SIGTERM to the first process; returns the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        run(self.site.runc(&["kill"]).args([&self.id, "TERM"])).ok();
        self.wait_for_exit()
    }

    /// Waits for the first process; returns the exit code.
    pub(crate) fn wait_for_exit(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the container has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Waits until the first process fails; returns its standard error.
    pub(crate) fn wait_for_failure(mut self) -> String {
        assert_eq!(self.wait_for_exit(), Some(1), "{}", self.errors());
        self.errors()
    }

    pub(crate) fn kill(self) {}

    /// Lets the first process end, and waits for it.
    pub(crate) fn finish(mut self) {
        let _ = self.input.take().unwrap().write_all(b"end\n");
        self.wait_for_exit();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // No panic here: the test may already be failing.
        let mut runc = self.site.runc(&["delete", "--force"]);
        let _ = runc.arg(&self.id).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.site.path(&format!("bundles/{}/root", self.id)));
    }
}
