//! A node without a cluster: pods' cgroups and networks as a kubelet creates them, an API server with the
//! pods, and the service that guards them.

mod api_server;
mod capabilities;
mod daemonset;
mod egress;
mod lifecycle;
mod requests;
mod scale;
mod watch;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use agentsecrets::intercept::ebpf;
use agentsecrets::launch::node::NodeStatus;
use serde_json::{Value, json};

use crate::containers::testbed::{OTHER_SECRET, SECRET, new_id};
use crate::support::certificate::Authority;
use crate::support::home::Home;
use crate::support::process::{Outcome, command, run, wait_until};
use crate::support::upstream::{Options, Upstream};

use super::{Driver, SERVICE_UID};
use api_server::ApiServer;

pub(super) use capabilities::GRANTED;

/// The label of guarded pods.
const LABEL: (&str, &str) = ("agentsecrets.dev/guard", "true");
const NODE: &str = "worker-1";

struct Cluster {
    home: Home,
    folder: tempfile::TempDir,
    api: ApiServer,
    server: Upstream,
    driver: Driver,
    /// The parent of the folder of all pods.
    above: PathBuf,
    pins: PathBuf,
}

/// The running service; dropping it kills it.
struct Service {
    child: Child,
    status: PathBuf,
}

/// A pod on the node; dropping it removes it.
struct Pod<'a> {
    cluster: &'a Cluster,
    uid: String,
    folder: PathBuf,
    sandbox: Option<Child>,
    public: PathBuf,
}

impl Cluster {
    fn new(driver: Driver) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let open = fs::Permissions::from_mode(0o755);
        let folder =
            tempfile::Builder::new().prefix("agentsecrets-node-").permissions(open).tempdir().unwrap();
        ebpf::mount_bpffs(Path::new("/sys/fs/bpf")).unwrap();
        let pins = Path::new("/sys/fs/bpf").join(format!("agentsecrets-node-{number}"));
        fs::create_dir(&pins).unwrap();
        let pins = pins.join("node");
        let above = ebpf::cgroup2_mount().unwrap().join(format!("agentsecrets-node-{number}"));
        let authority = Authority::new();
        let server = Upstream::start(Options::https(&authority, &["api.test"]));
        let mut home = Home::new();
        home.trust(&authority.pem());
        home.add_host("api.test", [127, 0, 0, 1]);
        let api = ApiServer::start();
        fs::write(folder.path().join("kubeconfig"), api.kubeconfig()).unwrap();
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::create_dir(folder.path().join("pods")).unwrap();
        fs::write(folder.path().join("secrets/STRIPE_KEY"), SECRET).unwrap();
        fs::write(folder.path().join("secrets/OTHER_KEY"), OTHER_SECRET).unwrap();
        home.write_config(&format!(
            "stores:\n  - mounted: {{ path: {} }}\n",
            folder.path().join("secrets").display()
        ));
        let cluster = Self { home, folder, api, server, driver, above, pins };
        for quality in ["burstable", "besteffort"] {
            fs::create_dir_all(cluster.above.join(driver.quality(quality))).unwrap();
        }
        cluster.policy(&cluster.agent_entry(
            "coder",
            "pod: { namespace: prod, service_account: agent }",
            "STRIPE_KEY",
        ));
        cluster
    }

    fn policy(&self, agents: &str) {
        self.home.write_policy(&format!("version: 1\nagents:\n{agents}"));
        chown_to_service(&self.home.path());
    }

    /// An agent entry that may use `secret` at the server.
    fn agent_entry(&self, name: &str, facts: &str, secret: &str) -> String {
        let port = self.server.port();
        format!(
            "  - name: {name}\n    match: {{ {facts} }}\n    allow:\n      - host: api.test\n        ports: [{port}]\n        private: true\n        secrets: [{secret}]\n"
        )
    }

    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.server.port())
    }

    /// The cgroup folder of all pods.
    fn kubepods(&self) -> PathBuf {
        self.above.join(self.driver.kubepods())
    }

    /// The service's command line from the chart.
    fn command(&self) -> Command {
        let root = ebpf::cgroup2_mount().unwrap();
        let kubepods = self.kubepods();
        let kubepods = kubepods.strip_prefix(&root).unwrap();
        let mut node = self.home.agentsecrets(["kubernetes", "node", "--node", NODE]);
        node.arg("--cgroups")
            .arg(&root)
            .arg("--kubepods")
            .arg(kubepods)
            .arg("--pins")
            .arg(self.pins.parent().unwrap());
        node.arg("--volumes").arg(self.folder.path().join("pods")).arg("--status").arg(self.status());
        // The machine's first process may not be inspected.
        node.args(["--network", "/proc/self/ns/net"]);
        node.args(["--user", &format!("{SERVICE_UID}:{SERVICE_UID}")]);
        node.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        node
    }

    fn status(&self) -> PathBuf {
        self.folder.path().join("status/node.json")
    }

    /// Starts the service and waits until it has listed every pod.
    fn start_service(&self) -> Service {
        let service = self.start(self.command());
        service.wait_until("it is listed", |status| status.listed);
        service
    }

    fn start(&self, mut node: Command) -> Service {
        let _ = fs::remove_file(self.status());
        chown_to_service(&self.home.path());
        let errors = fs::File::create(self.folder.path().join("stderr")).unwrap();
        let child = node.stderr(errors).spawn().unwrap();
        Service { child, status: self.status() }
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    fn audit(&self) -> Vec<Value> {
        self.home.audit()
    }

    /// A new pod that the cluster knows, with a cgroup and a network.
    fn pod(&self, namespace: &str, account: &str, labels: &[(&str, &str)]) -> Pod<'_> {
        let uid = new_uid();
        self.api.put_pod(pod_object(&uid, namespace, account, labels, NODE));
        self.pod_with(uid)
    }

    /// A pod with a cgroup and a network, unknown to the cluster.
    fn pod_with(&self, uid: String) -> Pod<'_> {
        let mut pod = self.cgroup("burstable", uid);
        pod.start_sandbox();
        pod
    }

    /// A pod with only a cgroup.
    fn cgroup(&self, quality: &str, uid: String) -> Pod<'_> {
        let folder = self.above.join(self.driver.pod(quality, &uid));
        // The kubelet mounts volumes before it starts containers.
        let pods = self.folder.path().join("pods").join(&uid);
        let public = pods.join("volumes/kubernetes.io~empty-dir/agentsecrets-public");
        fs::create_dir_all(&public).unwrap();
        fs::create_dir(&folder).unwrap();
        Pod { cluster: self, uid, folder, sandbox: None, public }
    }

    /// The names of the hooked cgroups.
    fn hooked(&self) -> Vec<String> {
        let all = fs::read_dir(self.pins.join("hooked")).into_iter().flatten();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        fn remove(folder: &Path) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                } else {
                    let _ = fs::remove_file(entry.path());
                }
            }
            let _ = fs::remove_dir(folder);
        }
        fn remove_cgroups(folder: &Path) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove_cgroups(&entry.path());
                }
            }
            let _ = fs::remove_dir(folder);
        }
        remove_cgroups(&self.above);
        remove(self.pins.parent().unwrap());
        if std::thread::panicking() {
            eprintln!("{}", self.errors());
        }
    }
}

impl Service {
    /// The service's status file.
    fn read_status(&self) -> NodeStatus {
        let text = fs::read_to_string(&self.status).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn(&NodeStatus) -> bool) {
        wait_until(what, || holds(&self.read_status()));
    }

    /// Waits until `count` pods are served.
    #[track_caller]
    fn wait_until_served(&self, count: usize) {
        self.wait_until(&format!("{count} pods are served"), |status| status.served == count);
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The service's process and its descendants.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while next < all.len() {
            let children =
                fs::read_to_string(format!("/proc/{0}/task/{0}/children", all[next])).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        all
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pod<'_> {
    /// Starts the container that holds the pod's network. As with `runc` it is briefly in the node's network.
    fn start_sandbox(&mut self) {
        let inside = "ip address add 10.9.9.9/32 dev lo && ip link set lo up && echo up && exec sleep 3000";
        self.start_sandbox_with(&["unshare", "--net", "sh", "-c", inside]);
    }

    fn start_sandbox_with(&mut self, words: &[&str]) {
        let container = self.new_container();
        let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut sandbox = command("/bin/sh");
        sandbox.args(["-c", join]).arg(&container).args(words).stdout(Stdio::piped());
        let mut child = sandbox.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        self.sandbox = Some(child);
    }

    /// Ends that container and its network.
    fn end_sandbox(&mut self) {
        if let Some(mut sandbox) = self.sandbox.take() {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
    }

    /// Creates a container's cgroup.
    fn new_container(&self) -> PathBuf {
        let container = self.folder.join(self.cluster.driver.container(&new_id()));
        fs::create_dir(&container).unwrap();
        container
    }

    /// A command that runs in a container as an agent does.
    fn container_command(&self, container: &Path, words: &[&str]) -> Command {
        let sandbox = self.sandbox.as_ref().unwrap().id();
        let enter = "echo $$ > \"$0/cgroup.procs\" && net=$1 && shift && exec nsenter --net=\"$net\" \
            setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --bounding-set -all \"$@\"";
        let mut program = command("/bin/sh");
        program.args(["-c", enter]).arg(container).arg(format!("/proc/{sandbox}/ns/net")).args(words);
        program.env("SSL_CERT_FILE", self.public.join("bundle.pem"));
        program
    }

    /// Runs a program in a new container.
    fn run(&self, words: &[&str]) -> Outcome {
        let container = self.new_container();
        let outcome = run(&mut self.container_command(&container, words));
        wait_until("the container is empty", || fs::remove_dir(&container).is_ok());
        outcome
    }

    /// curl with this placeholder as bearer token.
    fn curl(&self, secret: &str, more: &[&str], path: &str) -> Outcome {
        let header = format!("Authorization: Bearer AS_SECRET_{secret}");
        let resolve = format!("api.test:{}:198.51.100.7", self.cluster.server.port());
        let url = self.cluster.url(path);
        let curl = ["curl", "-sS", "-m", "20", "-H", &header, "--resolve", &resolve];
        self.run(&[&curl[..], more, &[&url]].concat())
    }

    /// curl's status code.
    #[track_caller]
    fn status(&self, secret: &str) -> String {
        let outcome = self.curl(secret, &["-o", "/dev/null", "-w", "%{http_code}"], "/echo");
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        outcome.stdout
    }

    /// Whether it is not served and has no egress.
    fn is_offline(&self) -> bool {
        self.curl("STRIPE_KEY", &[], "/echo").code == Some(7)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.end_sandbox();
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A pod's object in the API server.
fn pod_object(uid: &str, namespace: &str, account: &str, labels: &[(&str, &str)], node: &str) -> Value {
    let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "uid": uid, "name": format!("coder-{}", &uid[..8]), "namespace": namespace, "labels": labels },
        "spec": {
            "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "agent", "image": "agent", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
        },
        "status": { "phase": "Running" },
    })
}

fn new_uid() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{process:08x}-0000-4000-8000-{number:012x}")
}

/// Changes the owner of `folder` and its key to the service's user.
fn chown_to_service(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            chown_to_service(&entry.path());
        } else {
            let _ = chown(entry.path(), Some(SERVICE_UID), Some(SERVICE_UID));
        }
    }
    chown(folder, Some(SERVICE_UID), Some(SERVICE_UID)).unwrap();
}
