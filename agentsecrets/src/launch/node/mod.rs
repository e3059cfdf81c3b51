//! `kubernetes node`: one service that guards the labelled pods of a whole node, none of which needs anything of the
//! node's for that. It hooks a pod's cgroup when the kubelet makes it, before there is a process in it, and puts
//! the doors into the pod's network when there is one. It handles no agent's byte; the interceptor that it
//! starts, which has no privilege, serves all pods, each by what the cluster's API server says of it.

mod cgroup_watch;
mod cluster;
mod messages;
mod network;
mod pods;
mod status;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstream::eprintln;
use futures_util::StreamExt;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::time::MissedTickBehavior;

use super::interceptor::Interceptor;
use super::sidecar::{NotServed, owner, pid_namespace, step};
use super::sockets::Sockets;
use crate::intercept::ebpf::{self, EbpfError, Ports, Shared};
use crate::launch::audit_export::{LOOK_EVERY, Streaming};
use crate::policy::project_restriction::Narrow;
use crate::server::launch_config::{Order, Service};
use crate::sys::Ending;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

pub use cluster::Label;

use cluster::Selection;
pub use status::Status;

use cgroup_watch::Tree;
use messages::Words;
use network::Networks;
use pods::{Certificates, Pods};

/// Where the doors are in every pod's network: beyond the ports that a system hands out by itself, so that they
/// are free there again when we come back.
const DOORS: Ports = Ports { listener: 61_864, dns: 61_865 };
/// How soon it is looked again for what was not there yet.
const AGAIN: Duration = Duration::from_millis(50);
/// Where kubelets make the cgroups of pods.
const USUAL: [&str; 4] =
    ["kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"];

/// What to guard, and with what.
#[derive(Debug)]
pub struct Node {
    /// Where our files are.
    pub home: Home,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
    /// What a project file leaves of the policy.
    pub narrow: Narrow,
    /// The node's name, as the cluster has it.
    pub name: String,
    /// The label of pods that are guarded.
    pub label: Label,
    /// The namespaces whose pods are looked at; all, if there are none here.
    pub namespaces: Vec<String>,
    /// Where the host's tree of cgroups is mounted.
    pub cgroups: PathBuf,
    /// The cgroup that holds those of all pods, if it is not at a usual place.
    pub kubepods: Option<String>,
    /// The folder on a bpffs that holds our pins.
    pub pins: PathBuf,
    /// The node's own network, as a file.
    pub network: PathBuf,
    /// The kubelet's folder of pods, in which the volumes are that certificates are put into.
    pub volumes: Option<PathBuf>,
    /// As whom to serve, if it is not the owner of our state.
    pub user: Option<(u32, u32)>,
    /// Where to say what is guarded.
    pub status: Option<PathBuf>,
    /// Our own program's arguments, with which it sends the audit log on.
    pub streaming: Option<Vec<OsString>>,
}

/// Guards until it is told to end; guarded pods are offline then, not free. `interceptor` is as for
/// [`run`](super::run).
///
/// # Errors
/// Why nothing is guarded, or not any longer.
pub fn serve(
    wanted: &Node,
    client: impl AsyncFnOnce() -> Result<kube::Client, kube::Error>,
    interceptor: &[OsString],
) -> Result<(), NotServed> {
    let kubepods = kubepods(&wanted.cgroups, wanted.kubepods.as_deref())?;
    let (uid, gid) = wanted.user.map_or_else(|| owner(&wanted.home), Ok)?;
    if !ebpf::is_bpffs(&wanted.pins) {
        return Err(EbpfError::NoBpffs { path: wanted.pins.clone() }.into());
    }
    let networks = Networks::of_node(&wanted.network).map_err(step("find the node's own network"))?;
    let processes = pid_namespace().map_err(step("find our pid namespace"))?;
    // Apart from those of services in pods, who clear away what they find among theirs.
    let pins = wanted.pins.join("node");
    let shared = Shared::open(&pins, &kubepods, DOORS, Some(processes))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    let (ours, theirs) = pair.map_err(|error| step("speak with the interceptor")(error.into()))?;
    let order = order(wanted, &shared, &kubepods, &theirs, (uid, gid))?;
    let none = Sockets { ports: DOORS, listeners: Vec::new(), dns_udp: Vec::new(), dns_tcp: Vec::new() };
    let (interceptor, ready) = Interceptor::start(interceptor, &order, none)?;
    drop(theirs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(step("start a runtime")).and_then(|runtime| {
        runtime.block_on(async {
            let certificates = Certificates::new(wanted.volumes.clone(), &ready.authority);
            let tree = Tree::open(kubepods).map_err(step("follow the tree of cgroups"))?;
            let words = Words::new(ours).map_err(step("speak with the interceptor"))?;
            let pods = Pods::new(wanted.cgroups.clone(), shared, networks, words, certificates, tree)?;
            guard(wanted, pods, (uid, gid), client).await
        })
    });
    interceptor.finish();
    ended
}

async fn guard(
    wanted: &Node,
    mut pods: Pods,
    user: (u32, u32),
    client: impl AsyncFnOnce() -> Result<kube::Client, kube::Error>,
) -> Result<(), NotServed> {
    let mut ending = Ending::listen().map_err(step("wait for signals"))?;
    let client = client().await.map_err(|error| step("find the API server")(io::Error::other(error)))?;
    let selection = Selection::new(wanted.label.clone(), wanted.namespaces.clone(), user.0);
    eprintln!("agentsecrets: pods of {} with {selection} go through here", wanted.name);
    let mut news = Box::pin(cluster::follow(client, &wanted.name, selection));
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status = status::File::new(wanted.status.clone());
    let mut streaming = wanted.streaming.clone().map(|words| Streaming::of(words, Some(user)));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        status.write(&pods).map_err(step("write the status"))?;
        tokio::select! {
            // What holds comes before what serves.
            biased;
            () = ending.asked() => return Ok(()),
            changes = pods.tree.changes() => {
                let changes = changes.map_err(step("follow the tree of cgroups"))?;
                pods.changed(changes)?;
            }
            told = news.next() => match told {
                Some(told) => pods.told(told)?,
                None => return Err(step("follow the cluster's pods")(io::ErrorKind::UnexpectedEof.into())),
            },
            said = pods.words.hear() => match said.map_err(step("hear the interceptor"))? {
                Some(reach) => pods.reach(&reach)?,
                None => return Err(NotServed::Ended),
            },
            _ = looks.tick(), if streaming.is_some() => streaming.iter_mut().for_each(Streaming::keep),
            _ = again.tick(), if pods.waits() || status.is_late() => pods.again()?,
        }
    }
}

/// The folder that holds the cgroups of all pods.
fn kubepods(cgroups: &Path, named: Option<&str>) -> Result<PathBuf, NotServed> {
    let all = named.map_or_else(|| USUAL.to_vec(), |named| vec![named.trim_matches('/')]);
    let found = all.iter().map(|path| cgroups.join(path)).find(|path| path.is_dir());
    found.ok_or_else(|| {
        let places = all.join(", ");
        let what = format!("no cgroup of pods in {}: looked for {places}", cgroups.display());
        step("find the cgroups of pods")(io::Error::new(io::ErrorKind::NotFound, what))
    })
}

fn order(
    wanted: &Node,
    shared: &Shared,
    kubepods: &Path,
    pods: &OwnedFd,
    (uid, gid): (u32, u32),
) -> Result<Order, NotServed> {
    // Until the interceptor has it.
    let inherited = fcntl(pods, FcntlArg::F_SETFD(FdFlag::empty()));
    inherited.map_err(|error| step("speak with the interceptor")(error.into()))?;
    Ok(Order {
        home: wanted.home.clone(),
        project: wanted.project.clone(),
        environment: wanted.environment.clone(),
        narrow: wanted.narrow.clone(),
        agent: None,
        asked_by: None,
        session: String::new(),
        pins: Some(shared.pins().to_path_buf()),
        cgroup: path_below(&wanted.cgroups, kubepods),
        cgroup_root: wanted.cgroups.clone(),
        listeners: Vec::new(),
        dns_udp: Vec::new(),
        dns_tcp: Vec::new(),
        service: Some(Service {
            ours: None,
            processes: true,
            engine: None,
            spiffe: None,
            pods: Some(pods.as_raw_fd()),
        }),
        uid,
        gid,
    })
}

/// `folder` as a path of the tree at `root`.
fn path_below(root: &Path, folder: &Path) -> String {
    crate::identity::cgroup::path_in(root, folder).unwrap_or_else(|| "/".to_owned())
}
