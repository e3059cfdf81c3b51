//! `sidecar`: a service in a container that guards agents in other containers. It does not start them; it hooks
//! the cgroup that holds them and itself, or rules the network that they share with it, so that whatever is
//! started there, now or later, has no way out but through it. This process has the few privileges that takes, and gives them up, with the user that
//! it is, before it says that it is ready; it never reads the policy, a secret or an agent's byte.

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

use super::interceptor::{Interceptor, NoInterceptor, Ready};
use super::java;
use super::sockets::{Sockets, numbers};
use crate::intercept::ebpf::{self, Beside, EbpfError, Keep, Kept, Ports};
use crate::intercept::nftables::{self, NoRules};
use crate::launch::audit_export::{LOOK_EVERY, Streaming};
use crate::launch::cgroup_discovery::{NoPlace, Place};
use crate::policy::project_restriction::Narrow;
use crate::server::launch_config::{Order, Service};
use crate::server::sandbox::privileges;
use crate::sys::home::Home;
use crate::tls;
use crate::types::hex::hex;
use crate::types::name::{AgentName, Environment, Project};

/// What to guard, and for whom.
#[derive(Debug)]
pub struct Sidecar {
    /// Where our files are.
    pub home: Home,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
    /// What a project file leaves of the policy.
    pub narrow: Narrow,
    /// The policy's agent entry, if all agents here are one.
    pub agent: Option<AgentName>,
    /// What leads connections here.
    pub capture: Capture,
    /// The cgroup to hook, if it is not the one that holds our container.
    pub cgroup: Option<String>,
    /// The folder on a bpffs that holds the pins of all services of this machine.
    pub pins: PathBuf,
    /// The folder that agents read the authority's certificate from.
    pub public: PathBuf,
    /// As whom to serve, if it is not the owner of our state.
    pub user: Option<(u32, u32)>,
    /// Whether agents are in our pid namespace and their programs are to be proven.
    pub processes: bool,
    /// The socket of the engine that says which images agents' containers are of.
    pub engine: Option<PathBuf>,
    /// The socket of the SPIFFE Workload API that says who we are, and so our pod.
    pub spiffe: Option<PathBuf>,
    /// Our own program's arguments, with which it sends the audit log on.
    pub streaming: Option<Vec<OsString>>,
}

/// What leads agents' connections to us, and holds them otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// Programs in the kernel, at the cgroup that holds the agents.
    Ebpf,
    /// Rules of the network that the agents share with us.
    Nftables,
}

/// Why nothing is guarded.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// There is no cgroup to hook.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// The kernel side of interception failed.
    #[error("cannot intercept: {0}")]
    Ebpf(#[from] EbpfError),
    /// The kernel takes no rules.
    #[error("cannot intercept: {0}")]
    NoRules(#[from] NoRules),
    /// The interceptor does not serve.
    #[error(transparent)]
    NoInterceptor(#[from] NoInterceptor),
    /// Our files are root's, so that the interceptor would be root.
    #[error("{0} belongs to root: what handles agents' traffic must be another user")]
    Root(PathBuf),
    /// A step failed.
    #[error("cannot {0}: {1}")]
    Step(&'static str, io::Error),
    /// The interceptor ended by itself.
    #[error("the interceptor ended; agents are offline until this service is started again")]
    Ended,
}

/// Guards until it is told to end; agents are offline then, not free. `interceptor` is as for
/// [`run`](super::run). The process must have one thread.
pub fn serve(wanted: &Sidecar, interceptor: &[OsString]) -> Result<(), NotServed> {
    let (uid, gid) = wanted.user.map_or_else(|| owner(&wanted.home), Ok)?;
    let (hold, sockets) = match wanted.capture {
        Capture::Ebpf => hook(wanted)?,
        Capture::Nftables => rule(uid)?,
    };
    let order = order(wanted, &hold, &sockets, (uid, gid));
    let (mut interceptor, ready) = Interceptor::start(interceptor, &order, sockets)?;
    let prepared = introduce(wanted, &hold, &ready)
        .and_then(|()| privileges::drop_privileges(uid, gid).map_err(step("give up privileges")))
        .and_then(|()| interceptor.introduced().map_err(step("speak with the interceptor")));
    let ended = prepared.and_then(|()| {
        eprintln!("agentsecrets: what is started in {hold} goes through here");
        wait(&mut interceptor, wanted.streaming.clone().map(|words| Streaming::of(words, None)))
    });
    interceptor.finish();
    ended
}

/// What holds agents: it is in force from before we serve, and when we are gone.
enum Hold {
    Programs { place: Place, kept: Kept, ours: u64 },
    Rules { ports: Ports, passes: u32 },
}

impl Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Programs { place, .. } => f.write_str(&place.cgroup),
            Self::Rules { .. } => f.write_str("this network"),
        }
    }
}

impl Hold {
    /// Opens what policy opens.
    fn allow_inbound(&self, ports: &[u16]) -> Result<(), NotServed> {
        match self {
            Self::Programs { kept, .. } => Ok(ebpf::allow_inbound(&kept.pins, ports)?),
            Self::Rules { ports: doors, passes } => Ok(nftables::hold(*doors, *passes, ports)?),
        }
    }
}

/// Puts rules in force that let the user `passes` out; with the sockets that they lead to.
fn rule(passes: u32) -> Result<(Hold, Sockets), NotServed> {
    let sockets = Sockets::bind().map_err(step("listen on loopback"))?;
    nftables::hold(sockets.ports, passes, &[])?;
    Ok((Hold::Rules { ports: sockets.ports, passes }, sockets))
}

/// Hooks the cgroup around us; with the sockets that the hooks lead to.
fn hook(wanted: &Sidecar) -> Result<(Hold, Sockets), NotServed> {
    let place = Place::find(wanted.cgroup.as_deref())?;
    let ours = place.ours().map_err(step("find our own cgroup"))?;
    let processes = wanted.processes.then(pid_namespace).transpose();
    let beside = Beside { ours, processes: processes.map_err(step("find our pid namespace"))? };
    if !ebpf::is_bpffs(&wanted.pins) {
        return Err(EbpfError::NoBpffs { path: wanted.pins.clone() }.into());
    }
    ebpf::collect(&wanted.pins);
    let pins = folder_of_pins(&wanted.pins, &place).map_err(step("make a folder for pins"))?;
    let keep = Keep::new(pins, place.folder(), beside);
    let (kept, sockets) = guard(&keep)?;
    Ok((Hold::Programs { place, kept, ours }, sockets))
}

/// Waits to be told to end. The network of a container is gone with it, and those that share it are cut off for good:
/// so it is that of one which does nothing.
pub fn hold_network() -> Result<(), NotServed> {
    let asked = to_end();
    asked
        .thread_block()
        .and_then(|()| asked.wait())
        .map_err(|error| step("wait for signals")(error.into()))?;
    Ok(())
}

/// Who owns our state, and so serves: policy and secrets may be another's, for it to read.
pub(super) fn owner(home: &Home) -> Result<(u32, u32), NotServed> {
    let audit = home.audit();
    let state = audit.parent().unwrap_or(&audit);
    let owned = fs::metadata(state).map_err(step("find the folder of our state"))?;
    if owned.uid() == 0 { Err(NotServed::Root(state.to_path_buf())) } else { Ok((owned.uid(), owned.gid())) }
}

/// Takes up the hooks that are in force, or makes new ones; with the sockets that they lead to.
fn guard(keep: &Keep) -> Result<(Kept, Sockets), NotServed> {
    if let Some(kept) = keep.find() {
        // Before that, they keep us from our own doors.
        keep.take_up(&kept)?;
        match Sockets::bind_again(kept.ports) {
            Ok(sockets) => return Ok((kept, sockets)),
            // Another of ours, most likely: it is relieved.
            Err(error) => eprintln!("agentsecrets: other doors are made, as somebody serves there ({error})"),
        }
    }
    let sockets = Sockets::bind().map_err(step("listen on loopback"))?;
    Ok((keep.renew(sockets.ports)?, sockets))
}

/// Where the pins of the services of one cgroup are. A bpffs takes no dots in names.
fn folder_of_pins(all: &Path, place: &Place) -> io::Result<PathBuf> {
    let name = digest(&SHA256, place.cgroup.as_bytes());
    let folder = all.join(hex(name.as_ref().get(..8).unwrap_or_default()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

fn order(wanted: &Sidecar, hold: &Hold, sockets: &Sockets, (uid, gid): (u32, u32)) -> Order {
    let (pins, cgroup, cgroup_root, ours) = match hold {
        Hold::Programs { place, kept, ours } => {
            (Some(kept.pins.clone()), place.cgroup.clone(), place.root.clone(), Some(*ours))
        }
        Hold::Rules { .. } => Default::default(),
    };
    Order {
        home: wanted.home.clone(),
        project: wanted.project.clone(),
        environment: wanted.environment.clone(),
        narrow: wanted.narrow.clone(),
        agent: wanted.agent.clone(),
        asked_by: None,
        session: String::new(),
        pins,
        cgroup,
        cgroup_root,
        listeners: numbers(&sockets.listeners),
        dns_udp: numbers(&sockets.dns_udp),
        dns_tcp: numbers(&sockets.dns_tcp),
        service: Some(Service {
            ours,
            processes: wanted.processes,
            engine: wanted.engine.clone(),
            spiffe: wanted.spiffe.clone(),
            pods: None,
        }),
        uid,
        gid,
    }
}

/// Opens what policy opens, and shows agents whom to trust.
fn introduce(wanted: &Sidecar, hold: &Hold, ready: &Ready) -> Result<(), NotServed> {
    hold.allow_inbound(&ready.inbound)?;
    let bundle = tls::bundle::bundle(&ready.authority);
    let java = java::trust_store(&bundle);
    for (name, bytes) in
        [("ca.pem", ready.authority.as_bytes()), ("bundle.pem", bundle.as_bytes()), ("roots.jks", &java)]
    {
        show(&wanted.public.join(name), bytes).map_err(step("write the certificates for agents"))?;
    }
    Ok(())
}

/// Puts a file in place that anybody may read, whole or not at all.
pub(super) fn show(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Until a signal asks us to end, or the interceptor does.
fn wait(interceptor: &mut Interceptor, mut streaming: Option<Streaming>) -> Result<(), NotServed> {
    let asked = to_end();
    let signals = asked.thread_block().and_then(|()| SignalFd::new(&asked));
    let signals = signals.map_err(|error| step("wait for signals")(error.into()))?;
    let patience = match &streaming {
        Some(_) => PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    loop {
        streaming.iter_mut().for_each(Streaming::keep);
        let mut events = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(interceptor.end(), PollFlags::POLLIN),
        ];
        match poll(&mut events, patience) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(step("wait for the interceptor")(error.into())),
            Ok(_) => {}
        }
        let [asked, ended] = events.map(|event| event.any().unwrap_or(true));
        if asked {
            return Ok(());
        }
        if ended && interceptor.has_just_ended() {
            return Err(NotServed::Ended);
        }
    }
}

/// The signals that ask us to end.
fn to_end() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}

/// Device and inode of our pid namespace.
pub(super) fn pid_namespace() -> io::Result<(u64, u64)> {
    let namespace = fs::metadata("/proc/self/ns/pid")?;
    Ok((namespace.dev(), namespace.ino()))
}

pub(super) fn step(step: &'static str) -> impl FnOnce(io::Error) -> NotServed {
    move |error| NotServed::Step(step, error)
}
