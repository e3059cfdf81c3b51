//! The agent's init process, process 1 of its pid namespace. It joins the cgroup and proves that, arranges
//! the mounts, starts the command, and then, without any privilege, forwards signals and reaps.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};

use super::cgroup::Cgroup;
use super::command::{self, Command};
use super::terminal::StdioTerminals;
use super::view::{self, View};
use crate::launch::init_protocol::{self, InitReport};
use crate::privsep::Channel;
use crate::sys::process;

/// Everything that the init process needs.
pub(crate) struct AgentInit<'a> {
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) view: View<'a>,
    pub(crate) command: Command<'a>,
    /// Which of the standard descriptors are terminals of the caller.
    pub(crate) standard: StdioTerminals,
    /// The caller's environment: it decides where CA bundles and the command are looked for.
    pub(crate) caller_environment: &'a [(OsString, OsString)],
    /// The socket to the launcher.
    pub(crate) launcher: &'a Channel,
}

/// Runs the init process and returns the exit code of the command.
pub(crate) fn run(agent: &AgentInit<'_>) -> u8 {
    run_init(agent).unwrap_or_else(|error| {
        let _ = init_protocol::send(agent.launcher, &init_protocol::failed_report(125, error));
        125
    })
}

fn run_init(agent: &AgentInit<'_>) -> Result<u8, InitError> {
    SigSet::all().thread_block()?;
    let signals = SignalFd::new(&child_signals())?;
    setsid()?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    process::close_all_but(&[
        stdin.as_fd(),
        stdout.as_fd(),
        stderr.as_fd(),
        agent.launcher.as_fd(),
        signals.as_fd(),
    ])
    .map_err(step("close what it inherited"))?;
    die_with_launcher(agent.launcher)?;
    agent.cgroup.join().map_err(step("join its cgroup"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWIPC)
        .map_err(|error| step("leave the host's namespaces")(error.into()))?;
    let variables =
        agent.caller_environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    process::take_environment(variables).map_err(step("take its environment"))?;
    view::arrange(&agent.view).map_err(step("arrange what it sees"))?;
    if agent.standard.has_any() {
        replace_terminals(agent).map_err(step("give it a terminal of its own"))?;
    }
    let child = command::start(&agent.command).map_err(step("start the command"))?;
    let nowhere = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // Only the command keeps the standard descriptors.
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    dup2_stderr(&nowhere)?;
    command::drop_privileges(agent.command.user).map_err(step("drop its privileges"))?;
    prctl::set_dumpable(false)?;
    die_with_launcher(agent.launcher)?;
    let report = match child.wait_started()? {
        None => InitReport::Started,
        Some(failed) => failed,
    };
    init_protocol::send(agent.launcher, &report)?;
    let exit = wait_for_command(agent.launcher, &signals, child.pid)?;
    init_protocol::send(agent.launcher, &InitReport::Ended(exit))?;
    Ok(exit)
}

/// Replaces the caller's terminals among the standard descriptors by a new pseudo-terminal, and sends its
/// master to the launcher. It is opened in the agent's mount namespace, where no terminal of the host exists.
fn replace_terminals(agent: &AgentInit<'_>) -> io::Result<()> {
    use nix::fcntl::OFlag;
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let slave = nix::fcntl::open(Path::new(&name), flags, nix::sys::stat::Mode::empty())?;
    fchown(&slave, Some(agent.command.user.uid), None)?;
    init_protocol::send_terminal(agent.launcher, &OwnedFd::from(master))?;
    if agent.standard.input {
        dup2_stdin(&slave)?;
    }
    if agent.standard.output {
        dup2_stdout(&slave)?;
    }
    if agent.standard.error {
        dup2_stderr(&slave)?;
    }
    Ok(())
}

/// Reaps every process of the namespace and forwards the launcher's signals until the command ends. When this
/// process ends, the kernel kills the rest of the namespace.
fn wait_for_command(launcher: &Channel, signals: &SignalFd, command: Pid) -> io::Result<u8> {
    loop {
        while let Some(status) = reap_child()? {
            match status {
                WaitStatus::Exited(pid, code) if pid == command => return Ok(code as u8),
                WaitStatus::Signaled(pid, signal, _) if pid == command => return Ok(128 + signal as u8),
                _ => {}
            }
        }
        let mut ready = [
            PollFd::new(launcher.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            done => done?,
        };
        let [from_launcher, _] = ready.map(|fd| fd.any().unwrap_or(true));
        if from_launcher {
            match init_protocol::recv_signal(launcher)? {
                // The command may have ended, or have changed its process group.
                Some(signal) => drop(killpg(command, signal)),
                None => return Err(io::Error::other("the launcher is gone")),
            }
        }
        // Drained so that it wakes us again; `reap_child` looks at the processes themselves.
        while let Ok(Some(_)) = try_read_signal(signals) {}
    }
}

fn try_read_signal(signals: &SignalFd) -> nix::Result<Option<nix::sys::signalfd::siginfo>> {
    let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::ZERO)? == 0 { Ok(None) } else { signals.read_signal() }
}

fn reap_child() -> io::Result<Option<WaitStatus>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => Ok(None),
        Ok(status) => Ok(Some(status)),
        Err(error) => Err(error.into()),
    }
}

/// SIGCHLD, read from a descriptor: every signal is blocked in the init process.
fn child_signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

/// Has the kernel kill this process when the launcher ends. A change of user clears that setting, and a
/// launcher that ended before is noticed here.
fn die_with_launcher(launcher: &Channel) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut ready = [PollFd::new(launcher.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO)?;
    let gone = ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    if gone { Err(io::Error::other("the launcher is gone")) } else { Ok(()) }
}

/// Reasons that the agent was not started.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("the agent's first process cannot {0}: {1}")]
    Step(&'static str, io::Error),
    #[error("the agent's first process failed: {0}")]
    Other(#[from] io::Error),
}

impl From<nix::Error> for InitError {
    fn from(error: nix::Error) -> Self {
        InitError::Other(error.into())
    }
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> InitError {
    move |error| InitError::Step(step, error)
}
