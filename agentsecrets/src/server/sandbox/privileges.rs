//! Ourselves, hard to attack: the interceptor reads hostile bytes, so it gives up what it does not need
//! before the first of them arrives.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::identity::container_engine::Engine;
use crate::identity::inspector::Witness;
use crate::identity::spiffe_workload_api::Workload;
use crate::server::sandbox::landlock;
use crate::server::sandbox::seccomp;
use crate::sys::capabilities;
use crate::sys::home::Home;

/// What the witness keeps: the right to see which program another user's process runs.
const KEPT_BY_THE_WITNESS: Capability = Capability::CAP_SYS_PTRACE;

/// What root keeps in a home that another user owns.
const KEPT_IN_ANOTHERS_HOME: &[Capability] =
    &[Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER];

/// Starts the process that looks at others, as `uid` and `gid`. Call it with a single thread, before
/// privileges are given up.
pub fn start_witness(uid: u32, gid: u32) -> io::Result<Witness> {
    Witness::start(|| {
        become_user(uid, gid, &[KEPT_BY_THE_WITNESS])?;
        seccomp::allow_looking()
    })
}

/// The same as the user that we are, for programs of that user.
pub fn start_witness_of_our_own() -> io::Result<Witness> {
    Witness::start(|| {
        capabilities::keep_only(&[KEPT_BY_THE_WITNESS])?;
        seccomp::allow_looking()
    })
}

/// Starts the process that asks the engine behind `socket`: as `uid` in the group of the socket, if that may ask,
/// else as the socket's owner. Call it with a single thread, before privileges are given up.
pub fn start_asker(socket: &Path, uid: u32, gid: u32) -> io::Result<Engine> {
    let told = |why: &str| io::Error::other(format!("{} {why}", socket.display()));
    let there = std::fs::metadata(socket).map_err(|error| told(&format!("cannot be reached: {error}")))?;
    if !there.file_type().is_socket() {
        return Err(told("is no socket"));
    }
    let by_group = there.mode() & 0o020 != 0;
    let (uid, gid) = if by_group { (uid, there.gid()) } else { (there.uid(), gid) };
    Engine::start(socket.to_path_buf(), || {
        become_user(uid, gid, &[])?;
        landlock::confine_to_nothing()?;
        seccomp::allow_asking()
    })
}

/// Starts the process that asks the SPIFFE Workload API at `socket`, as `uid` and `gid`: whether anybody answers there
/// yet or not. Call it with a single thread, before privileges are given up.
pub fn start_workload(socket: &Path, uid: u32, gid: u32) -> io::Result<Workload> {
    Workload::start(socket.to_path_buf(), || {
        become_user(uid, gid, &[])?;
        landlock::confine_to_nothing()?;
        seccomp::allow_following()
    })
}

/// Gives up every capability but those that it takes to write a `home` which is another user's. Call it with a
/// single thread.
pub fn shed_privileges(home: &Home) -> io::Result<()> {
    let owner = std::fs::metadata(home.runtime()).map(|folder| folder.uid());
    let is_ours = owner.is_ok_and(|owner| owner == Uid::effective().as_raw());
    capabilities::keep_only(if is_ours { &[] } else { KEPT_IN_ANOTHERS_HOME })
}

/// Becomes `uid` and `gid` for good, without any capability. Call it with a single thread: capabilities are
/// each thread's own.
pub fn drop_privileges(uid: u32, gid: u32) -> io::Result<()> {
    become_user(uid, gid, &[])
}

/// Becomes `uid` and `gid` with the right to start a command as somebody else, which the program that is
/// executed next has, too. Call it with a single thread.
pub fn become_giver(uid: u32, gid: u32) -> io::Result<()> {
    // And to signal what it started.
    let kept = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];
    become_user(uid, gid, &kept)?;
    for capability in kept {
        caps::raise(None, CapSet::Inheritable, capability).map_err(io::Error::other)?;
        caps::raise(None, CapSet::Ambient, capability).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Becomes `uid` and `gid` for good, with those capabilities alone that are `kept`. Call it with a single
/// thread.
pub fn become_user(uid: u32, gid: u32, kept: &[Capability]) -> io::Result<()> {
    // Before the change of user, which takes the right to.
    capabilities::bound_to(kept)?;
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    capabilities::keep_only(kept)?;
    // Changing the user makes a process dumpable or not by the system's settings: say it again.
    prctl::set_dumpable(false)?;
    Ok(())
}
