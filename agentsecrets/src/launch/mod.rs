//! `run`: an agent's process in a cgroup and a sandbox of its own, with no way out but through us. The
//! launcher has privileges and handles no hostile byte: it never reads the vault or the policy, nor what
//! an agent sends.

pub mod agent;
mod audit_export;
pub mod cgroup;
pub mod cgroup_discovery;
pub mod cleanup;
pub mod command;
pub mod environment;
pub mod init_protocol;
pub mod interceptor;
pub mod java;
pub mod mounts;
pub mod node;
pub mod run_resources;
mod sandbox_detection;
pub mod seccomp;
pub mod sidecar;
pub mod sockets;
pub mod state_files;
pub mod supervise;
pub mod terminal;
pub mod user;
pub mod view;

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::eprintln;
use caps::Capability;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Uid;

use crate::authz::registry::RegistryError;
use crate::authz::sessions::{Session, Who};
use crate::identity::ancestry::Born;
use crate::intercept::ebpf::{self, EbpfError};
use crate::policy::project_restriction::Narrow;
use crate::server::launch_config::Order;
use crate::sys::capabilities;
use crate::sys::home::Home;
use crate::sys::process;
use crate::tls::bundle::bundle;
use crate::types::hex::hex;
use crate::types::name::{AgentName, Environment, Project};

pub use cgroup::NoCgroup;
pub use interceptor::NoInterceptor;
pub use sandbox_detection::{MARKER, inside_agent};
pub use user::{NoUser, home_of_who_called_sudo, person, uid_of_who_called_sudo, who_called_sudo};

use agent::Agent;
use cgroup::Cgroup;
use cleanup::Janitor;
use command::Command;
use interceptor::{Interceptor, Ready};
use run_resources::{Leftovers, RUNS};
use sockets::{Sockets, numbers};
use supervise::Ended;
use terminal::Standard;
use user::AgentUser;
use view::View;

/// What to run, and for whom.
#[derive(Debug)]
pub struct Run {
    /// Where our files are.
    pub home: Home,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
    /// What a project file leaves of the policy.
    pub narrow: Narrow,
    /// The policy's agent entry.
    pub agent: Option<AgentName>,
    /// As whom the agent runs, if a user is named.
    pub user: Option<String>,
    /// Who asked for it, where that is not said by `sudo`.
    pub person: Option<nix::unistd::User>,
    /// The process that asked for it, where that is not one that this one descends from.
    pub asked_by: Option<Born>,
    /// The environment of who asked for it.
    pub variables: Vec<(OsString, OsString)>,
    /// How long it may run.
    pub ttl: Option<Duration>,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
}

/// Why the agent was not run.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    /// The caller is not root.
    #[error("`run` needs root: it loads kernel programs and makes namespaces")]
    NotRoot,
    /// The kernel offers no place for it.
    #[error(transparent)]
    NoCgroup(#[from] NoCgroup),
    /// There is no user for it.
    #[error(transparent)]
    NoUser(#[from] NoUser),
    /// The kernel side of interception failed.
    #[error("cannot intercept: {0}")]
    Ebpf(#[from] EbpfError),
    /// The interceptor does not serve.
    #[error(transparent)]
    NoInterceptor(#[from] NoInterceptor),
    /// The command could not be started.
    #[error("{what}")]
    NotStarted {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        /// What happened.
        what: String,
    },
    /// The run could not be entered among the sessions.
    #[error("cannot begin a session: {0}")]
    NoSession(#[from] RegistryError),
    /// A step of the launcher failed.
    #[error("cannot {0}: {1}")]
    Step(&'static str, io::Error),
}

/// Runs the command and returns its exit code. `interceptor` is the program, with its arguments, that
/// serves: it finds an [`Order`] on its standard input. The process must have one thread, and should end
/// soon after this returns.
pub fn run(run: &Run, interceptor: &[OsString]) -> Result<u8, NotRun> {
    if !Uid::effective().is_root() {
        return Err(NotRun::NotRoot);
    }
    let id = new_id().map_err(step("make a random id"))?;
    let private = PathBuf::from(format!("/tmp/agentsecrets-{id}"));
    let person = run.person.clone().or_else(who_called_sudo);
    let user = AgentUser::choose(run.user.as_deref(), person.as_ref(), &private)?;
    let pins = mounts::bpffs().map_err(step("mount the BPF file system"))?.join("agentsecrets").join(&id);
    let (leftovers, lock) = Leftovers {
        folder: Path::new(RUNS).join(&id),
        cgroup: Cgroup::plan(&id)?,
        pins,
        home: user.private_home.then_some(private),
    }
    .register()
    .map_err(step("register the run"))?;
    let janitor = Janitor::start(&leftovers, lock).map_err(step("start the janitor"))?;
    let ended = guarded(run, interceptor, &id, &user, &leftovers);
    if let Err(error) = janitor.finish() {
        eprintln!("agentsecrets: {error}");
    }
    ended
}

/// Everything that the janitor cleans up after.
fn guarded(
    run: &Run,
    interceptor: &[OsString],
    id: &str,
    user: &AgentUser,
    leftovers: &Leftovers,
) -> Result<u8, NotRun> {
    refuse_network_sockets().map_err(step("give the agent its standard descriptors"))?;
    state_files::make_folders(&run.home).map_err(step("make our folders"))?;
    let cgroup = &leftovers.cgroup;
    cgroup.create().map_err(step("make a cgroup"))?;
    // One without a cgroup would be taken for gone.
    let who = Who::Run { cgroup: leftovers.cgroup.path.clone() };
    state_files::register(&run.home, Session::begin(id.to_owned(), who, run.agent.clone(), run.ttl))?;
    if user.private_home {
        view::make_private_home(user).map_err(step("make a private HOME"))?;
    }
    let sockets = Sockets::bind().map_err(step("listen on loopback"))?;
    fs::create_dir_all(leftovers.pins.parent().unwrap_or(&leftovers.pins))
        .map_err(step("make a folder for pins"))?;
    let _attachment = ebpf::attach(&cgroup.folder(), &leftovers.pins, sockets.ports, &[])?;
    let order = order(run, id, leftovers, &sockets);
    let (mut interceptor, ready) = Interceptor::start(interceptor, &order, sockets)?;
    let ended = with_interceptor(run, user, leftovers, &mut interceptor, &ready);
    interceptor.finish();
    match ended? {
        Ended::With(exit) => Ok(exit),
        Ended::NotStarted { exit, what } => Err(NotRun::NotStarted { exit, what }),
    }
}

fn with_interceptor(
    run: &Run,
    user: &AgentUser,
    leftovers: &Leftovers,
    interceptor: &mut Interceptor,
    ready: &Ready,
) -> Result<Ended, NotRun> {
    if !ready.inbound.is_empty() {
        ebpf::allow_inbound(&leftovers.pins, &ready.inbound)?;
    }
    let folder = std::env::current_dir().unwrap_or_else(|_| user.home.clone());
    let standard = Standard::find();
    let words = run.command.iter().map(|word| CString::new(word.as_bytes()));
    let words =
        words.collect::<Result<Vec<_>, _>>().map_err(|error| step("pass an argument on")(error.into()))?;
    let name = run.agent.as_ref().map(AgentName::as_str);
    let environment =
        environment::environment(run.variables.iter().cloned(), user, name, &ready.placeholders);
    let environment = environment::lines(environment);
    let bundle = bundle(&ready.authority);
    let java = java::trust_store(&bundle);
    let blocked = block_signals().map_err(step("block signals"))?;
    let (ours, theirs) = sockets_between().map_err(step("make a socket"))?;
    let mut to_hide = state_files::to_hide(&run.home, user, &run.variables);
    to_hide.extend(ready.hidden.iter().cloned());
    let agent = Agent {
        cgroup: &leftovers.cgroup,
        view: View {
            user,
            ours: to_hide,
            authority: &ready.authority,
            bundle: &bundle,
            java: &java,
            folder: &folder,
            terminals: standard.names(),
        },
        command: Command { words: &words, environment: &environment, folder: &folder, user, blocked },
        standard,
        variables: &run.variables,
        launcher: &theirs,
    };
    let watched = view::unprotected(user, &folder);
    // Only children are in the new namespace: the next one is its first process.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| step("make a pid namespace")(error.into()))?;
    let first = process::fork(|| agent::live(&agent)).map_err(step("start the agent"))?;
    drop(theirs);
    // What loaded the kernel's programs does nothing of the kind from here on: it relays and ends.
    capabilities::keep_only(&[Capability::CAP_KILL]).map_err(step("give up privileges"))?;
    let until = run.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
    let run = supervise::Run { cgroup: &leftovers.cgroup, agent: ours, interceptor, until, standard };
    let ended = supervise::supervise(run);
    // However that went, nothing of the agent goes on.
    let killed = leftovers.cgroup.kill();
    let _ = waitpid(first, None);
    for path in watched.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()) {
        eprintln!("agentsecrets: {} is new and would run outside the sandbox: look at it", path.display());
    }
    killed.map_err(step("kill what the command left"))?;
    ended.map_err(step("supervise the agent"))
}

fn order(run: &Run, id: &str, leftovers: &Leftovers, sockets: &Sockets) -> Order {
    let (uid, gid) = state_files::owner(&run.home);
    Order {
        home: run.home.clone(),
        project: run.project.clone(),
        environment: run.environment.clone(),
        narrow: run.narrow.clone(),
        agent: run.agent.clone(),
        asked_by: run.asked_by,
        session: id.to_string(),
        pins: Some(leftovers.pins.clone()),
        cgroup: leftovers.cgroup.path.clone(),
        cgroup_root: leftovers.cgroup.root.clone(),
        listeners: numbers(&sockets.listeners),
        dns_udp: numbers(&sockets.dns_udp),
        dns_tcp: numbers(&sockets.dns_tcp),
        service: None,
        uid,
        gid,
    }
}

/// A socket of the network among the standard descriptors was born outside the cgroup, where no hook sees
/// what is sent through it.
fn refuse_network_sockets() -> io::Result<()> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for standard in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let family = socket2::SockRef::from(&standard).domain();
        if family.is_ok_and(|family| family != socket2::Domain::UNIX) {
            return Err(io::Error::other("one of them is a network socket; use a pipe"));
        }
    }
    Ok(())
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    Ok(hex(&bytes))
}

fn block_signals() -> io::Result<SigSet> {
    Ok(supervise::caught().thread_swap_mask(SigmaskHow::SIG_BLOCK)?)
}

fn sockets_between() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> NotRun {
    move |error| NotRun::Step(step, error)
}
