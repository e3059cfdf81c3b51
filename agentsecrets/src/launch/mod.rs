//! `run`: starts an agent in a cgroup and a sandbox of its own, with no way out but through the interceptor.
//! The launcher is privileged and handles no hostile byte: it never reads the vault, the policy or an agent's
//! traffic.

mod agent;
mod audit_export;
pub(crate) mod cgroup;
pub(crate) mod cgroup_discovery;
mod cleanup;
mod command;
mod environment;
mod init_protocol;
mod interceptor;
mod java;
pub(crate) mod mounts;
pub mod node;
mod run_resources;
mod sandbox_detection;
mod seccomp;
pub(crate) mod sidecar;
mod sockets;
mod state_files;
mod supervise;
pub(crate) mod terminal;
mod user;
pub(crate) mod view;

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::eprintln;
use caps::Capability;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::waitpid;
use nix::unistd::Uid;

use crate::authz::registry::RegistryError;
use crate::authz::sessions::{Holder, Session};
use crate::identity::ancestry::ProcessStart;
use crate::intercept::ebpf::{self, EbpfError};
use crate::policy::project_restriction::ProjectRestriction;
use crate::server::launch_config::LaunchConfig;
use crate::sys::capabilities;
use crate::sys::home::Home;
use crate::sys::process;
use crate::tls::bundle::bundle;
use crate::types::hex::hex;
use crate::types::name::{AgentName, Environment, Project};

pub use cgroup::CgroupError;
pub use interceptor::InterceptorError;
pub(crate) use sandbox_detection::is_inside_agent;
pub use user::UserError;
pub(crate) use user::{sudo_caller, sudo_caller_home, sudo_caller_uid, user_or_placeholder};

use agent::AgentInit;
use cgroup::Cgroup;
use cleanup::CleanupProcess;
use command::Command;
use interceptor::{InterceptorProcess, InterceptorReady};
use run_resources::{RUNS_FOLDER, RunResources};
use sockets::{ListenerSockets, raw_fds};
use supervise::RunOutcome;
use terminal::StdioTerminals;
use user::AgentUser;
use view::View;

/// Configuration of a run.
#[derive(Debug)]
pub struct RunConfig {
    /// Our files.
    pub home: Home,
    /// The project of its secrets.
    pub project: Project,
    /// The environment of its secrets.
    pub environment: Environment,
    /// The project file's restriction of the policy.
    pub restriction: ProjectRestriction,
    /// The policy's agent entry.
    pub agent: Option<AgentName>,
    /// The user that `run --user` names.
    pub user: Option<String>,
    /// The person who requested the run, if `sudo` does not tell.
    pub caller: Option<nix::unistd::User>,
    /// The process that requested the run, if this process does not descend from it.
    pub requested_by: Option<ProcessStart>,
    /// The environment of the person who requested the run.
    pub caller_environment: Vec<(OsString, OsString)>,
    /// The run ends after this time.
    pub ttl: Option<Duration>,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
}

/// Reasons that a run fails.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The launcher is not root.
    #[error("`run` needs root: it loads kernel programs and makes namespaces")]
    RootRequired,
    /// There is no cgroup for it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// There is no user for it.
    #[error(transparent)]
    User(#[from] UserError),
    /// The kernel programs failed.
    #[error("cannot intercept: {0}")]
    Ebpf(#[from] EbpfError),
    /// The interceptor failed.
    #[error(transparent)]
    Interceptor(#[from] InterceptorError),
    /// The command was not started.
    #[error("{error}")]
    CommandNotStarted {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        /// The reason.
        error: String,
    },
    /// The session could not be registered.
    #[error("cannot begin a session: {0}")]
    Session(#[from] RegistryError),
    /// A step of the launcher failed.
    #[error("cannot {0}: {1}")]
    Step(&'static str, io::Error),
}

/// Runs the command and returns its exit code. `interceptor` is the interceptor's program with its arguments;
/// it reads a [`LaunchConfig`] from its standard input. The process must have one thread, and should end soon
/// after this returns.
pub fn run(run: &RunConfig, interceptor: &[OsString]) -> Result<u8, RunError> {
    if !Uid::effective().is_root() {
        return Err(RunError::RootRequired);
    }
    let id = new_id().map_err(step("make a random id"))?;
    let private = PathBuf::from(format!("/tmp/agentsecrets-{id}"));
    let person = run.caller.clone().or_else(sudo_caller);
    let user = AgentUser::choose(run.user.as_deref(), person.as_ref(), &private)?;
    let pins = mounts::find_or_mount_bpffs()
        .map_err(step("mount the BPF file system"))?
        .join("agentsecrets")
        .join(&id);
    let (resources, lock) = RunResources {
        folder: Path::new(RUNS_FOLDER).join(&id),
        cgroup: Cgroup::plan(&id)?,
        pins,
        private_home: user.private_home.then_some(private),
    }
    .register()
    .map_err(step("register the run"))?;
    let cleanup = CleanupProcess::start(&resources, lock).map_err(step("start the cleanup process"))?;
    let outcome = run_with_cleanup(run, interceptor, &id, &user, &resources);
    if let Err(error) = cleanup.finish() {
        eprintln!("agentsecrets: {error}");
    }
    outcome
}

/// The part of a run that the cleanup process undoes.
fn run_with_cleanup(
    run: &RunConfig,
    interceptor: &[OsString],
    id: &str,
    user: &AgentUser,
    resources: &RunResources,
) -> Result<u8, RunError> {
    refuse_network_sockets().map_err(step("give the agent its standard descriptors"))?;
    state_files::make_folders(&run.home).map_err(step("make our folders"))?;
    let cgroup = &resources.cgroup;
    cgroup.create().map_err(step("make a cgroup"))?;
    // A session without a cgroup would be taken for ended.
    let who = Holder::Run { cgroup: resources.cgroup.path.clone() };
    state_files::register_session(&run.home, Session::begin(id.to_owned(), who, run.agent.clone(), run.ttl))?;
    if user.private_home {
        view::make_private_home(user).map_err(step("make a private HOME"))?;
    }
    let sockets = ListenerSockets::bind().map_err(step("listen on loopback"))?;
    fs::create_dir_all(resources.pins.parent().unwrap_or(&resources.pins))
        .map_err(step("make a folder for pins"))?;
    let _attachment = ebpf::attach(&cgroup.folder(), &resources.pins, sockets.ports, &[])?;
    let config = launch_config(run, id, resources, &sockets);
    let (mut interceptor, ready) = InterceptorProcess::start(interceptor, &config, sockets)?;
    let outcome = run_agent(run, user, resources, &mut interceptor, &ready);
    interceptor.stop();
    match outcome? {
        RunOutcome::Exited(exit) => Ok(exit),
        RunOutcome::NotStarted { exit, error } => Err(RunError::CommandNotStarted { exit, error }),
    }
}

fn run_agent(
    run: &RunConfig,
    user: &AgentUser,
    resources: &RunResources,
    interceptor: &mut InterceptorProcess,
    ready: &InterceptorReady,
) -> Result<RunOutcome, RunError> {
    if !ready.inbound.is_empty() {
        ebpf::allow_inbound(&resources.pins, &ready.inbound)?;
    }
    let folder = std::env::current_dir().unwrap_or_else(|_| user.home.clone());
    let standard = StdioTerminals::detect();
    let arguments = run.command.iter().map(|argument| CString::new(argument.as_bytes()));
    let arguments = arguments
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| step("pass an argument on")(error.into()))?;
    let name = run.agent.as_ref().map(AgentName::as_str);
    let environment = environment::agent_environment(
        run.caller_environment.iter().cloned(),
        user,
        name,
        &ready.placeholders,
    );
    let environment = environment::to_exec_strings(environment);
    let bundle = bundle(&ready.authority);
    let java_store = java::trust_store(&bundle);
    let blocked = block_signals().map_err(step("block signals"))?;
    let (launcher_end, init_end) = init_protocol::channel().map_err(step("make a socket"))?;
    let mut to_mask = state_files::paths_to_mask(&run.home, user, &run.caller_environment);
    to_mask.extend(ready.secret_folders.iter().cloned());
    let agent = AgentInit {
        cgroup: &resources.cgroup,
        view: View {
            user,
            ours: to_mask,
            authority: &ready.authority,
            bundle: &bundle,
            java: &java_store,
            folder: &folder,
            terminals: standard.paths(),
        },
        command: Command {
            arguments: &arguments,
            environment: &environment,
            working_folder: &folder,
            user,
            blocked_signals: blocked,
        },
        standard,
        caller_environment: &run.caller_environment,
        launcher: &init_end,
    };
    let unprotected = view::unprotected(user, &folder);
    // Only children are in the new namespace: the next one is its init process.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| step("make a pid namespace")(error.into()))?;
    let first = process::fork(|| agent::run(&agent)).map_err(step("start the agent"))?;
    drop(init_end);
    // From here on the launcher only relays and ends: it needs no other capability.
    capabilities::keep_only(&[Capability::CAP_KILL]).map_err(step("give up privileges"))?;
    let deadline = run.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
    let run = supervise::Supervised {
        cgroup: &resources.cgroup,
        agent: launcher_end,
        interceptor,
        deadline,
        standard,
    };
    let outcome = supervise::supervise(run);
    // Whatever the outcome, no process of the agent goes on.
    let killed = resources.cgroup.kill();
    let _ = waitpid(first, None);
    for path in unprotected.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()) {
        eprintln!("agentsecrets: {} is new and would run outside the sandbox: look at it", path.display());
    }
    killed.map_err(step("kill what the command left"))?;
    outcome.map_err(step("supervise the agent"))
}

fn launch_config(
    run: &RunConfig,
    id: &str,
    resources: &RunResources,
    sockets: &ListenerSockets,
) -> LaunchConfig {
    let (uid, gid) = state_files::owner(&run.home);
    LaunchConfig {
        home: run.home.clone(),
        project: run.project.clone(),
        environment: run.environment.clone(),
        restriction: run.restriction.clone(),
        agent: run.agent.clone(),
        requested_by: run.requested_by,
        session: id.to_string(),
        pins: Some(resources.pins.clone()),
        cgroup: resources.cgroup.path.clone(),
        cgroup_root: resources.cgroup.root.clone(),
        listeners: raw_fds(&sockets.listeners),
        dns_udp: raw_fds(&sockets.dns_udp),
        dns_tcp: raw_fds(&sockets.dns_tcp),
        container: None,
        uid,
        gid,
    }
}

/// Refuses network sockets among the standard descriptors: they were created outside the cgroup, so that no
/// hook sees their traffic.
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
    Ok(supervise::handled_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?)
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Step(step, error)
}
