//! The agent's first process: process 1 of its namespace. It joins the cgroup and proves it, arranges the
//! view, starts the command, and then, without any privilege, passes signals on and waits.

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
use super::terminal::Standard;
use super::view::{self, View};
use crate::launch::init_protocol::{self, Report};
use crate::sys::process;

/// What the agent's first process is told at its birth.
pub struct Agent<'a> {
    /// The cgroup to join.
    pub cgroup: &'a Cgroup,
    /// What the agent sees.
    pub view: View<'a>,
    /// What to start.
    pub command: Command<'a>,
    /// Which of the standard descriptors are terminals of the person.
    pub standard: Standard,
    /// The environment of who asked, by which what the agent sees is arranged and its command is found.
    pub variables: &'a [(OsString, OsString)],
    /// The socket to the launcher.
    pub launcher: &'a OwnedFd,
}

/// The life of the agent's first process; it returns the exit code of the command.
pub fn live(agent: &Agent<'_>) -> u8 {
    live_or_fail(agent).unwrap_or_else(|error| {
        let _ = init_protocol::send(agent.launcher, &init_protocol::failed(125, error), None);
        125
    })
}

fn live_or_fail(agent: &Agent<'_>) -> Result<u8, Failed> {
    SigSet::all().thread_block()?;
    let signals = SignalFd::new(&caught())?;
    setsid()?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    process::close_all_but(&[
        stdin.as_fd(),
        stdout.as_fd(),
        stderr.as_fd(),
        agent.launcher.as_fd(),
        signals.as_fd(),
    ])
    .map_err(at("close what it inherited"))?;
    die_with_the_launcher(agent.launcher)?;
    agent.cgroup.join().map_err(at("join its cgroup"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWIPC)
        .map_err(|error| at("leave the host's namespaces")(error.into()))?;
    let variables = agent.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    process::take_environment(variables).map_err(at("take its environment"))?;
    view::arrange(&agent.view).map_err(at("arrange what it sees"))?;
    if agent.standard.any() {
        take_terminal(agent).map_err(at("give it a terminal of its own"))?;
    }
    let child = command::start(&agent.command).map_err(at("start the command"))?;
    let nowhere = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // The person's and the agent's descriptors are the command's alone.
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    dup2_stderr(&nowhere)?;
    command::drop_privileges(agent.command.user).map_err(at("drop its privileges"))?;
    prctl::set_dumpable(false)?;
    die_with_the_launcher(agent.launcher)?;
    let said = match child.started()? {
        None => Report::Started,
        Some(failed) => failed,
    };
    init_protocol::send(agent.launcher, &said, None)?;
    let exit = wait(agent.launcher, &signals, child.pid)?;
    init_protocol::send(agent.launcher, &Report::Ended(exit), None)?;
    Ok(exit)
}

/// Replaces the person's terminals among the standard descriptors by a new one, whose other side goes to
/// the launcher. It is opened inside the view, where no terminal of the host exists.
fn take_terminal(agent: &Agent<'_>) -> io::Result<()> {
    use nix::fcntl::OFlag;
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname_r(&ours)?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let theirs = nix::fcntl::open(Path::new(&name), flags, nix::sys::stat::Mode::empty())?;
    fchown(&theirs, Some(agent.command.user.uid), None)?;
    init_protocol::send(agent.launcher, &Report::Terminal, Some(&OwnedFd::from(ours)))?;
    if agent.standard.input {
        dup2_stdin(&theirs)?;
    }
    if agent.standard.output {
        dup2_stdout(&theirs)?;
    }
    if agent.standard.error {
        dup2_stderr(&theirs)?;
    }
    Ok(())
}

/// Reaps every process of the namespace until the command ends, passing on what the launcher sends. When
/// this process ends, the kernel kills all that is left in the namespace.
fn wait(launcher: &OwnedFd, signals: &SignalFd, command: Pid) -> io::Result<u8> {
    loop {
        while let Some(status) = reap()? {
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
            match init_protocol::to_pass_on(launcher)? {
                // The command may have ended, or have changed its process group.
                Some(signal) => drop(killpg(command, signal)),
                None => return Err(io::Error::other("the launcher is gone")),
            }
        }
        // Emptied only so that it wakes us again; `reap` looks at the processes themselves.
        while let Ok(Some(_)) = nonblocking(signals) {}
    }
}

fn nonblocking(signals: &SignalFd) -> nix::Result<Option<nix::sys::signalfd::siginfo>> {
    let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::ZERO)? == 0 { Ok(None) } else { signals.read_signal() }
}

fn reap() -> io::Result<Option<WaitStatus>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => Ok(None),
        Ok(status) => Ok(Some(status)),
        Err(error) => Err(error.into()),
    }
}

/// Every signal is blocked in the first process; the end of a child is read from a descriptor.
fn caught() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

/// Has the kernel kill this process when the launcher ends, which a change of user undoes. If it has
/// ended already, that is seen here.
fn die_with_the_launcher(launcher: &OwnedFd) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut ready = [PollFd::new(launcher.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO)?;
    let gone = ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    if gone { Err(io::Error::other("the launcher is gone")) } else { Ok(()) }
}

/// Why the agent was not started.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// A named step failed.
    #[error("the agent's first process cannot {0}: {1}")]
    Step(&'static str, io::Error),
    /// Another system call failed.
    #[error("the agent's first process failed: {0}")]
    Other(#[from] io::Error),
}

impl From<nix::Error> for Failed {
    fn from(error: nix::Error) -> Self {
        Failed::Other(error.into())
    }
}

fn at(step: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed::Step(step, error)
}
