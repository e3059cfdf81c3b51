//! Loading, attaching and pinning. The drop of everything comes first and goes last, so that there is no
//! moment in which some hooks are there and others are not and traffic passes; what fails half-way is
//! taken back.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use agentsecrets_ebpf::{Inbound, globals};
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::pin::PinError;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};

use super::error::{EbpfError, failed};
use super::link::{self, Hook};
use super::mounts::{is_bpffs, is_cgroup2};
use super::object::OBJECT;
use super::offsets;

/// Pinned map of connections on their way to the listener.
pub(super) const FLOWS: &str = "FLOWS";
/// Pinned map of ports from which answers may leave.
pub(super) const INBOUND: &str = "INBOUND";
/// Pinned map of our own cgroups beside the agents'.
const OURS: &str = "OURS";
/// The pinned maps.
pub(super) const MAPS: [&str; 3] = [FLOWS, INBOUND, OURS];
/// The drop of everything that the other programs did not lead somewhere.
pub(super) const EGRESS: &str = "as_egress";
/// The programs in the order in which they are attached.
pub(super) const PROGRAMS: [(&str, Hook); 14] = [
    (EGRESS, Hook::Egress),
    ("as_sock_create", Hook::SockCreate),
    ("as_setsockopt", Hook::Setsockopt),
    ("as_bind4", Hook::Bind4),
    ("as_bind6", Hook::Bind6),
    ("as_getpeername4", Hook::Getpeername4),
    ("as_getpeername6", Hook::Getpeername6),
    ("as_recvmsg4", Hook::Recvmsg4),
    ("as_recvmsg6", Hook::Recvmsg6),
    ("as_sockops", Hook::SockOps),
    ("as_sendmsg4", Hook::Sendmsg4),
    ("as_sendmsg6", Hook::Sendmsg6),
    ("as_connect4", Hook::Connect4),
    ("as_connect6", Hook::Connect6),
];

/// The ports of our listeners, on 127.0.0.1 and on `[::1]` alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The listener's TCP port.
    pub listener: u16,
    /// The resolver's port, for UDP and TCP.
    pub dns: u16,
}

/// Parameters of the programs if our own processes are hooked as the agents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondAttachment {
    /// The id of our cgroup, directly below the hooked one.
    pub ours: u64,
    /// Device and inode of the pid namespace in which agents' processes can be looked at, if there is one.
    pub processes: Option<(u64, u64)>,
}

/// The hooks are in force. They stay so when this is dropped; [`detach`] ends them.
#[derive(Debug)]
#[must_use]
pub struct Attachment {
    pins: PathBuf,
}

impl Attachment {
    /// The folder of the pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }
}

/// Attaches the programs to a cgroup and all below it. The listener and the resolver should exist already.
/// `pins` is a folder on a bpffs that does not exist yet; it and its missing parents are made for root alone.
/// `inbound` are the agent's TCP ports that others may reach.
///
/// # Errors
/// If something is missing or refused; nothing is attached then.
pub fn attach(cgroup: &Path, pins: &Path, ports: Ports, inbound: &[u16]) -> Result<Attachment, EbpfError> {
    attach_second(cgroup, pins, ports, inbound, None)
}

/// As [`attach`], with our own processes among those that are hooked.
///
/// # Errors
/// As for [`attach`].
pub fn attach_second(
    cgroup: &Path,
    pins: &Path,
    ports: Ports,
    inbound: &[u16],
    beside: Option<SecondAttachment>,
) -> Result<Attachment, EbpfError> {
    if !is_cgroup2(cgroup) {
        return Err(EbpfError::NoCgroup2 { path: cgroup.to_path_buf() });
    }
    let processes = beside.and_then(|beside| beside.processes);
    let settings =
        Settings { ports, level: level_below(cgroup), hooked: 0, beside: beside.is_some(), processes };
    let ebpf = load(settings)?;
    let unfinished = PartialAttachment::make(pins)?;
    pin_maps(&ebpf, pins)?;
    allow_inbound(pins, inbound)?;
    if let Some(beside) = beside {
        let_pass(pins, beside.ours)?;
    }
    let programs = PROGRAMS.iter().map(|(name, _)| fd(&ebpf, name)).collect::<Result<Vec<_>, _>>()?;
    hook(cgroup, pins, &programs)?;
    Ok(unfinished.finish())
}

/// Pins the maps that user space reads or writes.
pub(super) fn pin_maps(ebpf: &Ebpf, pins: &Path) -> Result<(), EbpfError> {
    MAPS.iter().try_for_each(|name| {
        let map = ebpf.map(name).ok_or_else(|| incomplete(name))?;
        map.pin(pins.join(name)).map_err(|error| pinning(&pins.join(name), error))
    })
}

/// Attaches `programs`, which are [`PROGRAMS`], to `cgroup`, and pins each link.
pub(super) fn hook(cgroup: &Path, pins: &Path, programs: &[BorrowedFd<'_>]) -> Result<(), EbpfError> {
    let folder = File::open(cgroup)
        .map_err(|error| EbpfError::call(format!("opening {}", cgroup.display()), error))?;
    for ((name, hook), program) in PROGRAMS.into_iter().zip(programs) {
        let attached = link::create(*program, folder.as_fd(), hook)
            .map_err(|error| EbpfError::call(format!("attaching the program {name}"), error))?;
        let path = pins.join(name);
        link::pin(&attached, &path).map_err(|source| EbpfError::Pin { path, source })?;
    }
    Ok(())
}

/// The descriptor of a loaded program.
pub(super) fn fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, EbpfError> {
    let program = ebpf.program(name).ok_or_else(|| incomplete(name))?;
    Ok(program.fd().map_err(|error| refused(name, error))?.as_fd())
}

/// Lets answers leave from these TCP ports of the agent, and from no others.
///
/// # Errors
/// When the pin cannot be opened or the table is full.
pub fn allow_inbound(pins: &Path, ports: &[u16]) -> Result<(), EbpfError> {
    allow_inbound_of(pins, 0, ports)
}

/// The same for the hooked cgroup with this id, where the programs hook several.
///
/// # Errors
/// When the pin cannot be opened or the table is full.
pub(super) fn allow_inbound_of(pins: &Path, cgroup: u64, ports: &[u16]) -> Result<(), EbpfError> {
    let path = pins.join(INBOUND);
    let failed = |error| failed(format!("opening ports through {}", path.display()), error);
    let keys: Vec<_> =
        ports.iter().map(|&port| InboundPorts(Inbound { cgroup, port, ..Inbound::default() })).collect();
    make_it(&path, &keys, |door| door.0.cgroup == cgroup).map_err(failed)
}

#[derive(Clone, Copy, PartialEq)]
#[repr(transparent)]
struct InboundPorts(Inbound);

// SAFETY: integers without hidden bytes, as a test in their crate shows; every bit pattern is one.
unsafe impl aya::Pod for InboundPorts {}

/// Lets the sockets of our own cgroup alone, and of no other.
///
/// # Errors
/// When the pin cannot be opened.
pub(super) fn let_pass(pins: &Path, ours: u64) -> Result<(), EbpfError> {
    let path = pins.join(OURS);
    let failed = |error| failed(format!("naming our cgroup through {}", path.display()), error);
    make_it(&path, &[ours], |_| true).map_err(failed)
}

/// Leaves in a pinned table, of those that `concern` us, these keys alone: what an earlier process put there
/// may be wanted no longer.
fn make_it<K: aya::Pod + PartialEq>(
    pin: &Path,
    keys: &[K],
    concern: impl Fn(&K) -> bool,
) -> Result<(), MapError> {
    let mut map = HashMap::<_, K, u8>::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
    let before: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    let stale = before.iter().filter(|key| concern(key) && !keys.contains(key));
    stale.into_iter().try_for_each(|key| map.remove(key))?;
    keys.iter().try_for_each(|key| map.insert(key, 1, 0))
}

/// Removes the pins, and with them the hooks; the drop of everything goes last. What is already gone is
/// no error.
///
/// # Errors
/// When a pin cannot be removed. The drop of everything is then still in force.
pub fn detach(pins: &Path) -> Result<(), EbpfError> {
    // The reverse of how they were attached, and what another version of ours had besides.
    for name in PROGRAMS.iter().rev().map(|(name, _)| *name).filter(|name| *name != EGRESS) {
        let pin = pins.join(name);
        absent_is_fine(&pin, fs::remove_file(&pin))?;
    }
    let egress = pins.join(EGRESS);
    for pin in fs::read_dir(pins).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if pin != egress {
            absent_is_fine(&pin, fs::remove_file(&pin))?;
        }
    }
    absent_is_fine(&egress, fs::remove_file(&egress))?;
    absent_is_fine(pins, fs::remove_dir(pins))
}

/// Loads every program and lets go of it.
pub(super) fn verify() -> Result<(), EbpfError> {
    let ports = Ports { listener: 1, dns: 2 };
    load(Settings { ports, level: 0, hooked: 0, beside: false, processes: None }).map(|_| ())
}

/// The depth of the cgroups directly below `cgroup`, if the whole tree is visible.
pub(super) fn level_below(cgroup: &Path) -> u32 {
    let Ok(cgroup) = cgroup.canonicalize() else { return 0 };
    let above: Vec<&Path> = cgroup.ancestors().take_while(|folder| is_cgroup2(folder)).collect();
    let whole = above.last().and_then(|top| top.metadata().ok()).is_some_and(|top| top.ino() == WHOLE);
    if whole { u32::try_from(above.len()).unwrap_or(0) } else { 0 }
}

/// The inode of the hierarchy's own root.
const WHOLE: u64 = 1;

/// Parameters of the programs, set before they are loaded.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) ports: Ports,
    /// The depth of agents' cgroups; 0 if unknown.
    pub(super) level: u32,
    /// The depth of the hooked cgroups, or one less, if there are many; else 0.
    pub(super) hooked: u32,
    /// Whether our own processes are hooked too.
    pub(super) beside: bool,
    /// Device and inode of the pid namespace in which agents' processes can be looked at, if there is one.
    pub(super) processes: Option<(u64, u64)>,
}

/// An older kernel does not tell the egress program the network namespace; own flows then go without it,
/// which only two namespaces with the same agent in both could confuse.
pub(super) fn load(settings: Settings) -> Result<Ebpf, EbpfError> {
    match load_with(settings, 1) {
        Err(EbpfError::Refused { program, .. }) if program == EGRESS => load_with(settings, 0),
        loaded => loaded,
    }
}

fn load_with(settings: Settings, egress_netns: u32) -> Result<Ebpf, EbpfError> {
    let Settings { ports, level, hooked, beside, processes } = settings;
    let offsets = offsets::of_kernel()?;
    let (device, inode) = processes.unwrap_or_default();
    let pid_namespace = [device, inode];
    let beside = u32::from(beside);
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global(globals::LISTENER_PORT, &ports.listener, true)
        .override_global(globals::DNS_PORT, &ports.dns, true)
        .override_global(globals::EGRESS_NETNS, &egress_netns, true)
        .override_global(globals::AGENT_LEVEL, &level, true)
        .override_global(globals::HOOKED_LEVEL, &hooked, true)
        .override_global(globals::BESIDE, &beside, true)
        .override_global(globals::PID_NAMESPACE, &pid_namespace[..], true)
        .override_global(globals::OFFSETS, &offsets[..], true)
        .load(OBJECT)
        .map_err(|error| match error {
            aya::EbpfError::MapError(error) => failed("making the kernel's tables", error),
            other => EbpfError::Kernel {
                doing: "reading the kernel programs".to_owned(),
                source: io::Error::other(other.to_string()),
            },
        })?;
    for (name, _) in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or_else(|| incomplete(name))?;
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(incomplete(name)),
        };
        loaded.map_err(|error| refused(name, error))?;
    }
    Ok(ebpf)
}

/// Pins that are taken back unless the attachment is finished.
pub(super) struct PartialAttachment {
    pins: Option<PathBuf>,
}

impl PartialAttachment {
    pub(super) fn make(pins: &Path) -> Result<Self, EbpfError> {
        let made = |source| EbpfError::Pin { path: pins.to_path_buf(), source };
        let above = pins.parent().unwrap_or(pins);
        DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(made)?;
        if !is_bpffs(above) {
            return Err(EbpfError::NoBpffs { path: above.to_path_buf() });
        }
        DirBuilder::new().mode(0o700).create(pins).map_err(made)?;
        Ok(Self { pins: Some(pins.to_path_buf()) })
    }

    pub(super) fn finish(mut self) -> Attachment {
        Attachment { pins: self.pins.take().unwrap_or_default() }
    }
}

impl Drop for PartialAttachment {
    fn drop(&mut self) {
        if let Some(pins) = &self.pins {
            let _ = detach(pins);
        }
    }
}

pub(super) fn absent_is_fine(path: &Path, removed: io::Result<()>) -> Result<(), EbpfError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EbpfError::Pin { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn refused(name: &str, error: ProgramError) -> EbpfError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            if log.trim().is_empty() {
                return EbpfError::call(format!("loading the program {name}"), io_error);
            }
            // Without CAP_PERFMON it refuses what it would let root do, and says so.
            if log.contains("!root") {
                return EbpfError::NotAllowed {
                    doing: format!("loading the program {name}"),
                    source: io_error,
                };
            }
            // The verifier says at the end what it did not like; the last line is statistics.
            let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines.iter().rev().take(6).rev().copied().collect::<Vec<_>>().join("; ");
            EbpfError::Refused { program: name.to_owned(), log: tail }
        }
        ProgramError::SyscallError(call) => {
            EbpfError::call(format!("loading the program {name}"), call.io_error)
        }
        other => EbpfError::Refused { program: name.to_owned(), log: other.to_string() },
    }
}

pub(super) fn pinning(path: &Path, error: PinError) -> EbpfError {
    match error {
        PinError::SyscallError(call) => EbpfError::Pin { path: path.to_path_buf(), source: call.io_error },
        other => EbpfError::Pin { path: path.to_path_buf(), source: io::Error::other(other.to_string()) },
    }
}

/// Cannot happen with an object that `cargo xtask ebpf` built from this source.
fn incomplete(name: &str) -> EbpfError {
    EbpfError::Refused { program: name.to_owned(), log: "the embedded object does not hold it".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_load_without_newer_kernel_features() {
        let ports = Ports { listener: 1, dns: 2 };
        let processes = Some((4, 5));
        for (level, hooked, beside, processes) in
            [(0, 0, false, None), (2, 0, false, None), (2, 0, true, processes), (0, 2, false, processes)]
        {
            for egress_netns in [0, 1] {
                load_with(Settings { ports, level, hooked, beside, processes }, egress_netns).unwrap();
            }
        }
    }
}
