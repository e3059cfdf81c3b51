//! `sidecar`: a containerised service that guards agents in other containers, which it does not start. It
//! attaches hooks to the cgroup that holds them and itself, or installs nftables rules in their shared
//! network, so that every process started there has no way out but through it. This process drops its
//! privileges and its user before it reports that it is ready; it never reads the policy, a secret or an
//! agent's byte.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anstream::eprintln;
use aws_lc_rs::digest::{SHA256, digest};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use super::interceptor::{InterceptorError, InterceptorProcess, InterceptorReady};
use super::java;
use super::sockets::{ListenerSockets, raw_fds};
use crate::intercept::ebpf::{self, EbpfError, PinFolder, PinnedHooks, Ports, SecondAttachment};
use crate::intercept::nftables::{self, NftablesError};
use crate::launch::audit_export::{AuditExporter, POLL_INTERVAL};
use crate::launch::cgroup_discovery::{CgroupDiscoveryError, CgroupLocation};
use crate::policy::project_restriction::ProjectRestriction;
use crate::server::launch_config::{ContainerConfig, LaunchConfig};
use crate::server::sandbox::privileges;
use crate::sys::home::Home;
use crate::tls;
use crate::types::hex::hex;
use crate::types::name::{AgentName, Environment, Project};

/// Configuration of a sidecar.
#[derive(Debug)]
pub(crate) struct SidecarConfig {
    pub(crate) home: Home,
    pub(crate) project: Project,
    pub(crate) environment: Environment,
    /// The project file's restriction of the policy.
    pub(crate) restriction: ProjectRestriction,
    /// The policy's agent entry, if all agents here are one.
    pub(crate) agent: Option<AgentName>,
    pub(crate) capture: Capture,
    /// The cgroup to hook, if it is not the parent of our container's.
    pub(crate) cgroup: Option<String>,
    /// The folder on a bpffs that holds the pins of all services of this machine.
    pub(crate) pins: PathBuf,
    /// The folder in which agents read the authority's certificate.
    pub(crate) public_folder: PathBuf,
    /// The user to serve as, if not the owner of our state.
    pub(crate) user: Option<(u32, u32)>,
    /// Whether agents are in our pid namespace and their programs are to be proven.
    pub(crate) sees_processes: bool,
    /// Socket of the container engine, which knows each container's image.
    pub(crate) engine_socket: Option<PathBuf>,
    /// Socket of the SPIFFE Workload API, which knows our pod.
    pub(crate) workload_api_socket: Option<PathBuf>,
    /// Arguments of our own program for exporting the audit log.
    pub(crate) audit_export: Option<Vec<OsString>>,
}

/// The mechanism that redirects agents' connections to us and blocks everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Kernel programs attached to the cgroup that holds the agents.
    Ebpf,
    /// nftables rules in the network that the agents share with us.
    Nftables,
}

/// Reasons that a service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error(transparent)]
    CgroupDiscovery(#[from] CgroupDiscoveryError),
    #[error("cannot intercept: {0}")]
    Ebpf(#[from] EbpfError),
    #[error("cannot intercept: {0}")]
    Nftables(#[from] NftablesError),
    #[error(transparent)]
    Interceptor(#[from] InterceptorError),
    /// The state belongs to root, so that the interceptor would run as root.
    #[error("{0} belongs to root: the interceptor must run as another user")]
    StateOwnedByRoot(PathBuf),
    #[error("cannot {0}: {1}")]
    Step(&'static str, io::Error),
    #[error("the interceptor ended; agents are offline until this service is started again")]
    InterceptorEnded,
}

/// Guards agents until a signal ends it; agents are offline afterwards, not free. `interceptor` is as for
/// [`run`](super::run). The process must have one thread.
pub(crate) fn serve(config: &SidecarConfig, interceptor: &[OsString]) -> Result<(), ServiceError> {
    let (uid, gid) = config.user.map_or_else(|| state_owner(&config.home), Ok)?;
    let (capture, sockets) = match config.capture {
        Capture::Ebpf => attach_ebpf(config)?,
        Capture::Nftables => install_nftables(uid)?,
    };
    let launch = launch_config(config, &capture, &sockets, (uid, gid));
    let (mut interceptor, ready) = InterceptorProcess::start(interceptor, &launch, sockets)?;
    let published = publish_certificates(config, &capture, &ready)
        .and_then(|()| privileges::drop_privileges(uid, gid).map_err(step("give up privileges")))
        .and_then(|()| interceptor.notify_agents_ready().map_err(step("speak with the interceptor")));
    let ended = published.and_then(|()| {
        eprintln!("agentsecrets: processes started in {capture} are intercepted");
        wait_for_end(
            &mut interceptor,
            config.audit_export.clone().map(|words| AuditExporter::new(words, None)),
        )
    });
    interceptor.stop();
    ended
}

/// The interception that is in force before we serve and after we end.
enum CaptureState {
    Ebpf { location: CgroupLocation, hooks: PinnedHooks, own_cgroup: u64 },
    Nftables { ports: Ports, exempt_uid: u32 },
}

impl Display for CaptureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ebpf { location, .. } => f.write_str(&location.cgroup),
            Self::Nftables { .. } => f.write_str("this network"),
        }
    }
}

impl CaptureState {
    fn allow_inbound(&self, ports: &[u16]) -> Result<(), ServiceError> {
        match self {
            Self::Ebpf { hooks, .. } => Ok(ebpf::allow_inbound(&hooks.pins, ports)?),
            Self::Nftables { ports: listeners, exempt_uid } => {
                Ok(nftables::hold(*listeners, *exempt_uid, ports)?)
            }
        }
    }
}

/// Installs rules that exempt the user `exempt_uid`; returns the sockets to which they redirect.
fn install_nftables(exempt_uid: u32) -> Result<(CaptureState, ListenerSockets), ServiceError> {
    let sockets = ListenerSockets::bind().map_err(step("listen on loopback"))?;
    nftables::hold(sockets.ports, exempt_uid, &[])?;
    Ok((CaptureState::Nftables { ports: sockets.ports, exempt_uid }, sockets))
}

/// Attaches hooks to the cgroup around us; returns the sockets to which they redirect.
fn attach_ebpf(config: &SidecarConfig) -> Result<(CaptureState, ListenerSockets), ServiceError> {
    let location = CgroupLocation::discover(config.cgroup.as_deref())?;
    let own_cgroup = location.own_cgroup_id().map_err(step("find our own cgroup"))?;
    let pid_namespace = config.sees_processes.then(pid_namespace).transpose();
    let containers = SecondAttachment {
        ours: own_cgroup,
        processes: pid_namespace.map_err(step("find our pid namespace"))?,
    };
    if !ebpf::is_bpffs(&config.pins) {
        return Err(EbpfError::NoBpffs { path: config.pins.clone() }.into());
    }
    ebpf::collect(&config.pins);
    let pins = create_pins_folder(&config.pins, &location).map_err(step("make a folder for pins"))?;
    let keep = PinFolder::new(pins, location.folder(), containers);
    let (hooks, sockets) = adopt_or_attach(&keep)?;
    Ok((CaptureState::Ebpf { location, hooks, own_cgroup }, sockets))
}

/// Waits for a signal to end. A container's network ends with it, and containers that share it are cut off
/// for good, so the network belongs to a container that does nothing else.
pub(crate) fn wait_for_signal() -> Result<(), ServiceError> {
    let signalled = termination_signals();
    signalled
        .thread_block()
        .and_then(|()| signalled.wait())
        .map_err(|error| step("wait for signals")(error.into()))?;
    Ok(())
}

/// The owner of our state, as whom we serve. Policy and secrets may belong to another user, and be readable.
pub(super) fn state_owner(home: &Home) -> Result<(u32, u32), ServiceError> {
    let audit = home.audit();
    let state = audit.parent().unwrap_or(&audit);
    let owned = fs::metadata(state).map_err(step("find the folder of our state"))?;
    if owned.uid() == 0 {
        Err(ServiceError::StateOwnedByRoot(state.to_path_buf()))
    } else {
        Ok((owned.uid(), owned.gid()))
    }
}

/// Adopts the attached hooks, or attaches new ones; returns the sockets to which they redirect.
fn adopt_or_attach(keep: &PinFolder) -> Result<(PinnedHooks, ListenerSockets), ServiceError> {
    if let Some(hooks) = keep.find() {
        // Before that, they keep us from our own ports.
        keep.take_up(&hooks)?;
        match ListenerSockets::bind_ports(hooks.ports) {
            Ok(sockets) => return Ok((hooks, sockets)),
            // Most likely another sidecar, which this one replaces.
            Err(error) => {
                eprintln!("agentsecrets: other ports are used, as the previous ones are taken ({error})")
            }
        }
    }
    let sockets = ListenerSockets::bind().map_err(step("listen on loopback"))?;
    Ok((keep.renew(sockets.ports)?, sockets))
}

/// Creates the folder of the pins for one cgroup. A bpffs allows no dots in names.
fn create_pins_folder(all: &Path, location: &CgroupLocation) -> io::Result<PathBuf> {
    let name = digest(&SHA256, location.cgroup.as_bytes());
    let folder = all.join(hex(name.as_ref().get(..8).unwrap_or_default()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

fn launch_config(
    config: &SidecarConfig,
    capture: &CaptureState,
    sockets: &ListenerSockets,
    (uid, gid): (u32, u32),
) -> LaunchConfig {
    let (pins, cgroup, cgroup_root, own_cgroup) = match capture {
        CaptureState::Ebpf { location, hooks, own_cgroup } => {
            (Some(hooks.pins.clone()), location.cgroup.clone(), location.root.clone(), Some(*own_cgroup))
        }
        CaptureState::Nftables { .. } => Default::default(),
    };
    LaunchConfig {
        home: config.home.clone(),
        project: config.project.clone(),
        environment: config.environment.clone(),
        restriction: config.restriction.clone(),
        agent: config.agent.clone(),
        requested_by: None,
        session: String::new(),
        pins,
        cgroup,
        cgroup_root,
        listeners: raw_fds(&sockets.listeners),
        dns_udp: raw_fds(&sockets.dns_udp),
        dns_tcp: raw_fds(&sockets.dns_tcp),
        container: Some(ContainerConfig {
            own_cgroup,
            sees_processes: config.sees_processes,
            engine_socket: config.engine_socket.clone(),
            workload_api_socket: config.workload_api_socket.clone(),
            pod_socket: None,
        }),
        uid,
        gid,
    }
}

/// Opens the policy's inbound ports, and publishes the certificates that agents must trust.
fn publish_certificates(
    config: &SidecarConfig,
    capture: &CaptureState,
    ready: &InterceptorReady,
) -> Result<(), ServiceError> {
    capture.allow_inbound(&ready.inbound)?;
    let bundle = tls::bundle::bundle(&ready.authority);
    let java = java::trust_store(&bundle);
    for (name, bytes) in
        [("ca.pem", ready.authority.as_bytes()), ("bundle.pem", bundle.as_bytes()), ("roots.jks", &java)]
    {
        write_public_file(&config.public_folder.join(name), bytes)
            .map_err(step("write the certificates for agents"))?;
    }
    Ok(())
}

/// Replaces a world-readable file atomically.
pub(super) fn write_public_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Waits until a signal or the interceptor's end.
fn wait_for_end(
    interceptor: &mut InterceptorProcess,
    mut exporter: Option<AuditExporter>,
) -> Result<(), ServiceError> {
    let signalled = termination_signals();
    let signals = signalled.thread_block().and_then(|()| SignalFd::new(&signalled));
    let signals = signals.map_err(|error| step("wait for signals")(error.into()))?;
    let poll_timeout = match &exporter {
        Some(_) => PollTimeout::try_from(POLL_INTERVAL).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    loop {
        exporter.iter_mut().for_each(AuditExporter::ensure_running);
        let mut events = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(interceptor.control_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, poll_timeout) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(step("wait for the interceptor")(error.into())),
            Ok(_) => {}
        }
        let [signalled, ended] = events.map(|event| event.any().unwrap_or(true));
        if signalled {
            return Ok(());
        }
        if ended && interceptor.poll_ended() {
            return Err(ServiceError::InterceptorEnded);
        }
    }
}

fn termination_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}

/// Device and inode of our pid namespace.
pub(super) fn pid_namespace() -> io::Result<(u64, u64)> {
    let namespace = fs::metadata("/proc/self/ns/pid")?;
    Ok((namespace.dev(), namespace.ino()))
}

pub(super) fn step(step: &'static str) -> impl FnOnce(io::Error) -> ServiceError {
    move |error| ServiceError::Step(step, error)
}
