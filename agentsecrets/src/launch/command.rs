//! Starts the agent's command: a child that gives up everything it was born with and then executes the
//! program. The order matters, since each step needs what a later one gives up.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use caps::{CapSet, CapsHashSet};
use landlock::{ABI, Access, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Pid, Uid, execvpe, isatty, pipe2, setgroups, setresgid, setresuid, setsid};

use super::seccomp;
use super::user::AgentUser;
use crate::launch::init_protocol::{self, InitReport};
use crate::sys::files::is_visible;
use crate::sys::{process, terminal};

/// The command to start.
pub(crate) struct Command<'a> {
    /// The program and its arguments; never empty.
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    /// The working directory, if the user may enter it; otherwise HOME.
    pub(crate) working_folder: &'a Path,
    pub(crate) user: &'a AgentUser,
    /// The signals that the caller had blocked.
    pub(crate) blocked_signals: SigSet,
}

/// A command that is being started.
pub(crate) struct Child {
    /// Its process, in the namespace of the caller.
    pub(crate) pid: Pid,
    /// The child writes the reason here if it cannot be executed.
    failure_pipe: OwnedFd,
}

impl Child {
    /// Waits until the program runs. Returns a report if it could not be started.
    pub(crate) fn wait_started(&self) -> io::Result<Option<InitReport>> {
        let mut text = Vec::new();
        File::from(self.failure_pipe.try_clone()?).read_to_end(&mut text)?;
        if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&text)?)) }
    }
}

/// Forks the command. The caller must be root and keeps its privileges.
pub(crate) fn start(command: &Command<'_>) -> io::Result<Child> {
    let (failure, say) = pipe2(OFlag::O_CLOEXEC)?;
    // The parent maps the ids: the child has lost the right to by then.
    let (unshared_end, unshared) = pipe2(OFlag::O_CLOEXEC)?;
    let (mapped_end, mapped) = pipe2(OFlag::O_CLOEXEC)?;
    let pid = process::fork(|| {
        let failed = match exec_program(command, &unshared, &mapped_end) {
            Err(failed) => failed,
            Ok(never) => match never {},
        };
        let exit = if let InitReport::Failed { exit, .. } = &failed { *exit } else { 125 };
        let _ =
            serde_json::to_vec(&failed).map(|text| File::from(say.try_clone().ok()?).write_all(&text).ok());
        exit
    })?;
    drop(unshared);
    if command.user.appears_as_root {
        // One byte: the child is in its namespace. None: it died, and reports the reason on the other pipe.
        if nix::unistd::read(&unshared_end, &mut [0])? == 1 {
            write_id_maps(pid, command.user)?;
            nix::unistd::write(&mapped, &[1])?;
        }
    }
    Ok(Child { pid, failure_pipe: failure })
}

/// Gives up every privilege of the calling process and becomes `user`, for good.
pub(crate) fn drop_privileges(user: &AgentUser) -> io::Result<()> {
    clear_gainable_capabilities()?;
    setgroups(&[])?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    clear_capabilities()
}

fn exec_program(
    command: &Command<'_>,
    unshared: &OwnedFd,
    mapped: &OwnedFd,
) -> Result<Infallible, InitReport> {
    let failure_125 =
        |what: &str, error: io::Error| init_protocol::failed_report(125, format!("cannot {what}: {error}"));
    confine(command, unshared, mapped).map_err(|error| failure_125("confine the command", error))?;
    enter_working_folder(command).map_err(|error| failure_125("enter a working directory", error))?;
    process::default_broken_pipe().map_err(|error| failure_125("reset a signal", error))?;
    command
        .blocked_signals
        .thread_set_mask()
        .map_err(|error| failure_125("unblock signals", error.into()))?;
    process::close_on_exec_from(3).map_err(|error| failure_125("close what it inherited", error))?;
    let Some(program) = command.arguments.first() else {
        return Err(init_protocol::failed_report(127, "no command"));
    };
    for filter in seccomp::agent_filters()
        .map_err(|error| failure_125("filter system calls", io::Error::other(error)))?
    {
        seccompiler::apply_filter(&filter)
            .map_err(|error| failure_125("filter system calls", io::Error::other(error)))?;
    }
    let Err(error) = execvpe(program, command.arguments, command.environment);
    let missing = error == Errno::ENOENT
        || (error == Errno::EACCES && !is_visible(OsStr::from_bytes(program.to_bytes())));
    let (exit, error) = if missing { (127, Errno::ENOENT) } else { (126, error) };
    Err(init_protocol::failed_report(
        exit,
        format!("{}: {}", program.to_string_lossy(), io::Error::from(error)),
    ))
}

fn confine(command: &Command<'_>, unshared: &OwnedFd, mapped: &OwnedFd) -> io::Result<()> {
    setsid()?;
    for standard in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        if isatty(standard).unwrap_or(false) {
            terminal::control(standard)?;
            break;
        }
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if command.user.appears_as_root {
        setgroups(&[])?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        nix::unistd::write(unshared, &[1])?;
        if nix::unistd::read(mapped, &mut [0])? != 1 {
            return Err(io::Error::other("its user could not be mapped"));
        }
        clear_gainable_capabilities()?;
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        clear_capabilities()?;
    } else {
        drop_privileges(command.user)?;
    }
    prctl::set_no_new_privs()?;
    restrict_scopes()
}

/// Maps uid 0 of the child's user namespace to the agent's user outside, and no other id.
fn write_id_maps(pid: Pid, user: &AgentUser) -> io::Result<()> {
    // `/proc` is already that of the new pid namespace, in which the caller knows the child.
    let at = |name: &str| format!("/proc/{pid}/{name}");
    std::fs::write(at("setgroups"), "deny")?;
    std::fs::write(at("gid_map"), format!("0 {} 1", user.gid))?;
    std::fs::write(at("uid_map"), format!("0 {} 1", user.uid))
}

/// Empties the sets from which an executed program could regain capabilities.
fn clear_gainable_capabilities() -> io::Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Empties the inheritable, effective and permitted sets.
fn clear_capabilities() -> io::Result<()> {
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Inheritable, &none).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &none).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &none).map_err(io::Error::other)
}

/// Keeps the agent from signalling other processes and from their abstract sockets, where the kernel's
/// Landlock can.
fn restrict_scopes() -> io::Result<()> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let scoped = ruleset.scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create);
    scoped.and_then(landlock::RulesetCreated::restrict_self).map(drop).map_err(io::Error::other)
}

/// Enters the caller's folder, otherwise HOME, otherwise the root.
fn enter_working_folder(command: &Command<'_>) -> io::Result<()> {
    let Err(error) = std::env::set_current_dir(command.working_folder) else { return Ok(()) };
    let instead = [command.user.home.as_path(), Path::new("/")];
    let entered = instead.iter().find(|folder| std::env::set_current_dir(folder).is_ok());
    let Some(entered) = entered else { return Err(error) };
    eprintln!(
        "agentsecrets: {} may not enter {} ({error}); starting in {}",
        command.user.name,
        command.working_folder.display(),
        entered.display()
    );
    Ok(())
}
