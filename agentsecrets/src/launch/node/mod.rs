//! `kubernetes node`: one service that guards the labelled pods of a whole node, without any change to the
//! pods. It hooks a pod's cgroup when the kubelet creates it, before it holds a process, and opens listeners
//! in the pod's network once that exists. It handles no agent's byte: the unprivileged interceptor that it
//! starts serves all pods, each by its details in the API server.

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
use tokio::time::MissedTickBehavior;

use super::interceptor::InterceptorProcess;
use super::sidecar::{ServiceError, pid_namespace, state_owner, step};
use super::sockets::ListenerSockets;
use crate::intercept::ebpf::{self, EbpfError, SharedPrograms};
use crate::launch::audit_export::{AuditExporter, POLL_INTERVAL};
use crate::policy::project_restriction::ProjectRestriction;
use crate::privsep::Channel;
use crate::server::launch_config::{ContainerConfig, LaunchConfig, POD_LIMITS};
use crate::sys::ShutdownListener;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

pub(crate) use cluster::Label;

use cluster::PodSelector;
pub use status::NodeStatus;

use cgroup_watch::CgroupWatch;
use messages::PodChannel;
use network::{NodeNetwork, POD_PORTS};
use pods::{CertificatePublisher, Pods, path_below};

const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// The usual places of pods' cgroups.
const KUBEPODS_CANDIDATES: [&str; 4] =
    ["kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"];

/// Configuration of a node's service.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    pub(crate) home: Home,
    pub(crate) project: Project,
    pub(crate) environment: Environment,
    /// The project file's restriction of the policy.
    pub(crate) restriction: ProjectRestriction,
    /// The node's name in the cluster.
    pub(crate) name: String,
    /// The label of guarded pods.
    pub(crate) label: Label,
    /// Namespaces to watch; empty for all.
    pub(crate) namespaces: Vec<String>,
    /// Mount point of the host's cgroup hierarchy.
    pub(crate) cgroups: PathBuf,
    /// The cgroup of all pods, if it is not at a usual place.
    pub(crate) kubepods: Option<String>,
    /// The folder on a bpffs that holds our pins.
    pub(crate) pins: PathBuf,
    /// The file of the node's own network namespace.
    pub(crate) network: PathBuf,
    /// The kubelet's folder of pods, into whose volumes certificates are written.
    pub(crate) kubelet_pods_folder: Option<PathBuf>,
    /// The user to serve as, if not the owner of our state.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) status_file: Option<PathBuf>,
    /// Arguments of our own program for exporting the audit log.
    pub(crate) audit_export: Option<Vec<OsString>>,
}

/// Guards pods until a signal ends it; guarded pods are offline afterwards, not free. `interceptor` is as for
/// [`run`](super::run).
pub(crate) fn serve(
    config: &NodeConfig,
    client: impl AsyncFnOnce() -> Result<kube::Client, kube::Error>,
    interceptor: &[OsString],
) -> Result<(), ServiceError> {
    let kubepods = find_kubepods(&config.cgroups, config.kubepods.as_deref())?;
    let (uid, gid) = config.user.map_or_else(|| state_owner(&config.home), Ok)?;
    if !ebpf::is_bpffs(&config.pins) {
        return Err(EbpfError::NoBpffs { path: config.pins.clone() }.into());
    }
    let networks = NodeNetwork::open(&config.network).map_err(step("find the node's own network"))?;
    let processes = pid_namespace().map_err(step("find our pid namespace"))?;
    // Apart from those of sidecars, which remove unknown pins in their folder.
    let pins = config.pins.join("node");
    let shared = SharedPrograms::open(&pins, &kubepods, POD_PORTS, Some(processes))?;
    let (launcher_end, interceptor_end) =
        Channel::pair(POD_LIMITS).map_err(step("speak with the interceptor"))?;
    let interceptor_end = OwnedFd::from(interceptor_end.into_socket());
    let launch = launch_config(config, &shared, &kubepods, &interceptor_end, (uid, gid))?;
    let sockets =
        ListenerSockets { ports: POD_PORTS, listeners: Vec::new(), dns_udp: Vec::new(), dns_tcp: Vec::new() };
    let (interceptor, ready) = InterceptorProcess::start(interceptor, &launch, sockets)?;
    drop(interceptor_end);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(step("start a runtime")).and_then(|runtime| {
        runtime.block_on(async {
            let certificates =
                CertificatePublisher::new(config.kubelet_pods_folder.clone(), &ready.authority);
            let tree = CgroupWatch::open(kubepods).map_err(step("follow the tree of cgroups"))?;
            let channel = PodChannel::new(launcher_end).map_err(step("speak with the interceptor"))?;
            let pods = Pods::new(config.cgroups.clone(), shared, networks, channel, certificates, tree)?;
            run_event_loop(config, pods, (uid, gid), client).await
        })
    });
    interceptor.stop();
    outcome
}

async fn run_event_loop(
    config: &NodeConfig,
    mut pods: Pods,
    user: (u32, u32),
    client: impl AsyncFnOnce() -> Result<kube::Client, kube::Error>,
) -> Result<(), ServiceError> {
    let mut ending = ShutdownListener::listen().map_err(step("wait for signals"))?;
    let client = client().await.map_err(|error| step("find the API server")(io::Error::other(error)))?;
    let selection = PodSelector::new(config.label.clone(), config.namespaces.clone(), user.0);
    eprintln!("agentsecrets: pods of {} with {selection} go through here", config.name);
    let mut events = Box::pin(cluster::watch_pods(client, &config.name, selection));
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status = status::StatusFile::new(config.status_file.clone());
    let mut streaming = config.audit_export.clone().map(|channel| AuditExporter::new(channel, Some(user)));
    let mut export_checks = tokio::time::interval(POLL_INTERVAL);
    loop {
        status.write(&pods).map_err(step("write the status"))?;
        tokio::select! {
            // Interception comes before serving.
            biased;
            () = ending.asked() => return Ok(()),
            changes = pods.tree.next_changes() => {
                let changes = changes.map_err(step("follow the tree of cgroups"))?;
                pods.handle_cgroup_changes(changes)?;
            }
            event = events.next() => match event {
                Some(event) => pods.handle_cluster_event(event)?,
                None => return Err(step("follow the cluster's pods")(io::ErrorKind::UnexpectedEof.into())),
            },
            message = pods.channel.recv() => match message.map_err(step("hear the interceptor"))? {
                Some(reach) => pods.set_inbound(&reach)?,
                None => return Err(ServiceError::InterceptorEnded),
            },
            _ = export_checks.tick(), if streaming.is_some() => streaming.iter_mut().for_each(AuditExporter::ensure_running),
            _ = retry.tick(), if pods.has_retries() || status.is_pending() => pods.retry_pending()?,
        }
    }
}

/// The folder that holds the cgroups of all pods.
fn find_kubepods(cgroups: &Path, named: Option<&str>) -> Result<PathBuf, ServiceError> {
    let candidates =
        named.map_or_else(|| KUBEPODS_CANDIDATES.to_vec(), |named| vec![named.trim_matches('/')]);
    let found = candidates.iter().map(|path| cgroups.join(path)).find(|path| path.is_dir());
    found.ok_or_else(|| {
        let tried = candidates.join(", ");
        let what = format!("no cgroup of pods in {}: looked for {tried}", cgroups.display());
        step("find the cgroups of pods")(io::Error::new(io::ErrorKind::NotFound, what))
    })
}

fn launch_config(
    config: &NodeConfig,
    shared: &SharedPrograms,
    kubepods: &Path,
    pods: &OwnedFd,
    (uid, gid): (u32, u32),
) -> Result<LaunchConfig, ServiceError> {
    // Until the interceptor has it.
    let inherited = fcntl(pods, FcntlArg::F_SETFD(FdFlag::empty()));
    inherited.map_err(|error| step("speak with the interceptor")(error.into()))?;
    Ok(LaunchConfig {
        home: config.home.clone(),
        project: config.project.clone(),
        environment: config.environment.clone(),
        restriction: config.restriction.clone(),
        agent: None,
        requested_by: None,
        session: String::new(),
        pins: Some(shared.pins().to_path_buf()),
        cgroup: path_below(&config.cgroups, kubepods),
        cgroup_root: config.cgroups.clone(),
        listeners: Vec::new(),
        dns_udp: Vec::new(),
        dns_tcp: Vec::new(),
        container: Some(ContainerConfig {
            own_cgroup: None,
            sees_processes: true,
            engine_socket: None,
            workload_api_socket: None,
            pod_socket: Some(pods.as_raw_fd()),
        }),
        uid,
        gid,
    })
}
