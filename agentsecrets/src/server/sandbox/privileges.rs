//! Drops privileges. A process that reads hostile bytes gives up what it does not need before the first of
//! them arrives, and starts the helpers that keep one privilege each.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::identity::container_engine::Engine;
use crate::identity::inspector::ProcessInspector;
use crate::identity::spiffe_workload_api::WorkloadApi;
use crate::server::sandbox::landlock;
use crate::server::sandbox::seccomp;
use crate::sys::capabilities;
use crate::sys::home::Home;

/// The process inspector's capability: it reads which program another user's process runs.
const INSPECTOR_CAPABILITY: Capability = Capability::CAP_SYS_PTRACE;

/// Capabilities that root keeps to write a home of another user.
const FOREIGN_HOME_CAPABILITIES: &[Capability] =
    &[Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER];

/// Starts the process inspector as `uid` and `gid`. Call it with a single thread, while privileged.
pub(crate) fn start_inspector(uid: u32, gid: u32) -> io::Result<ProcessInspector> {
    ProcessInspector::start(|| {
        become_user(uid, gid, &[INSPECTOR_CAPABILITY])?;
        seccomp::allow_inspecting()
    })
}

/// Starts the process inspector as the current user, for programs of that user.
pub(crate) fn start_own_inspector() -> io::Result<ProcessInspector> {
    ProcessInspector::start(|| {
        capabilities::keep_only(&[INSPECTOR_CAPABILITY])?;
        seccomp::allow_inspecting()
    })
}

/// Starts the helper that queries the container engine at `socket`: as `uid` in the socket's group if the
/// group may connect, otherwise as the socket's owner. Call it with a single thread, while privileged.
pub(crate) fn start_engine_client(socket: &Path, uid: u32, gid: u32) -> io::Result<Engine> {
    let error_about = |why: &str| io::Error::other(format!("{} {why}", socket.display()));
    let metadata =
        std::fs::metadata(socket).map_err(|error| error_about(&format!("cannot be reached: {error}")))?;
    if !metadata.file_type().is_socket() {
        return Err(error_about("is no socket"));
    }
    let by_group = metadata.mode() & 0o020 != 0;
    let (uid, gid) = if by_group { (uid, metadata.gid()) } else { (metadata.uid(), gid) };
    Engine::start(socket.to_path_buf(), || {
        become_user(uid, gid, &[])?;
        landlock::deny_all()?;
        seccomp::allow_local_client()
    })
}

/// Starts the helper that queries the SPIFFE Workload API at `socket`, as `uid` and `gid`. The API need not
/// be up yet. Call it with a single thread, while privileged.
pub(crate) fn start_workload_client(socket: &Path, uid: u32, gid: u32) -> io::Result<WorkloadApi> {
    WorkloadApi::start(socket.to_path_buf(), || {
        become_user(uid, gid, &[])?;
        landlock::deny_all()?;
        seccomp::allow_local_watcher()
    })
}

/// Gives up every capability except those that writing another user's `home` takes. Call it with a single
/// thread.
pub(crate) fn shed_privileges(home: &Home) -> io::Result<()> {
    let owner = std::fs::metadata(home.runtime()).map(|folder| folder.uid());
    let is_ours = owner.is_ok_and(|owner| owner == Uid::effective().as_raw());
    capabilities::keep_only(if is_ours { &[] } else { FOREIGN_HOME_CAPABILITIES })
}

/// Becomes `uid` and `gid` for good, without any capability. Call it with a single thread: capabilities
/// belong to a thread.
pub(crate) fn drop_privileges(uid: u32, gid: u32) -> io::Result<()> {
    become_user(uid, gid, &[])
}

/// Becomes `uid` and `gid` and keeps, across `execve`, the capabilities to start a command as another user.
/// Call it with a single thread.
pub(crate) fn become_user_who_starts_commands(uid: u32, gid: u32) -> io::Result<()> {
    // CAP_KILL: it signals the command that it started.
    let keep = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];
    become_user(uid, gid, &keep)?;
    for capability in keep {
        caps::raise(None, CapSet::Inheritable, capability).map_err(io::Error::other)?;
        caps::raise(None, CapSet::Ambient, capability).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Becomes `uid` and `gid` for good with only the capabilities in `kept`. Call it with a single thread.
pub(crate) fn become_user(uid: u32, gid: u32, keep: &[Capability]) -> io::Result<()> {
    // Before the change of user, which takes the right to do this.
    capabilities::bound_to(keep)?;
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    capabilities::keep_only(keep)?;
    // The change of user resets the dumpable flag to the system's setting.
    prctl::set_dumpable(false)?;
    Ok(())
}
