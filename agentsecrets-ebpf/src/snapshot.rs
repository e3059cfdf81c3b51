//! Who is asking, read while it asks: a process can connect and then become another program.

use agentsecrets_ebpf::Snapshot;
use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_ns_current_pid_tgid,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel};

use crate::state::{offset, pid_namespace};

/// The snapshot of the current process; nothing if any part of it cannot be read.
///
/// The executable is taken from the current thread's memory, which threads share, since a leader that
/// has exited has none; the start time from the leader, since that is what `/proc` shows.
#[inline(always)]
pub fn take() -> Option<Snapshot> {
    // SAFETY: helpers without arguments.
    let (task, cgroup) = unsafe { (bpf_get_current_task(), bpf_get_current_cgroup_id()) };
    let leader = pointer(task, offset::<0>())?;
    let start_boottime: u64 = member(leader, offset::<1>())?;
    let memory = pointer(task, offset::<2>())?;
    let file = pointer(memory, offset::<3>())?;
    let inode = pointer(file, offset::<4>())?;
    let exe_inode: u64 = member(inode, offset::<5>())?;
    let super_block = pointer(inode, offset::<6>())?;
    let exe_device: u32 = member(super_block, offset::<7>())?;
    let ids = bpf_get_current_uid_gid();
    Some(Snapshot {
        start_boottime,
        exe_inode,
        cgroup,
        exe_device,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: ids as u32,
        gid: (ids >> 32) as u32,
        tgid_here: tgid_here(),
        padding: 0,
    })
}

/// The current process's id in the pid namespace that user space named, if it is in that one.
#[inline(always)]
fn tgid_here() -> u32 {
    let (device, inode) = pid_namespace();
    if inode == 0 {
        return 0;
    }
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    let size = size_of::<bpf_pidns_info>() as u32;
    // SAFETY: the helper fills the structure, whose size is given.
    let found = unsafe { bpf_get_ns_current_pid_tgid(device, inode, &raw mut ids, size) };
    if found == 0 { ids.tgid } else { 0 }
}

/// A pointer member that is not null.
#[inline(always)]
fn pointer(base: u64, offset: u64) -> Option<u64> {
    member::<u64>(base, offset).filter(|&pointer| pointer != 0)
}

#[inline(always)]
fn member<T>(base: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails on one that is not mapped.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset) as *const T).ok() }
}
