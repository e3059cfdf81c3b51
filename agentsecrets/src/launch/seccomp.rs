//! The system calls that an agent may not make: those with which it could leave the hooks' sight or take
//! part in the kernel's control. A second wall where a capability is needed as well; the only one for
//! socket families, terminals and user namespaces.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

/// Refused with EPERM.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
];

/// Answered with ENOSYS, as by a kernel without them, so that programs fall back to what can be judged:
/// a filter cannot read the arguments of `clone3`, nor see what a ring is asked for.
const ABSENT: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup];

/// Families of sockets that the hooks see, or that stay on this machine.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What a new process may not be given of its own. CLONE_NEWTIME shares its bit with clone's exit signal.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
const CLONE_NEWTIME: i32 = 0x80;

/// TIOCSTI and TIOCLINUX, with which a program types into a terminal.
const TYPING: &[u64] = &[0x5412, 0x541c];

/// The bit of every system call of the x32 interface, and one more than its highest number.
#[cfg(target_arch = "x86_64")]
const X32: (i64, i64) = (0x4000_0000, 600);

/// The filters, to be applied one after the other, last of all that a process gives up.
pub fn filters() -> Result<Vec<BpfProgram>, BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, vec![])).collect();
    refused.insert(
        libc::SYS_socket,
        vec![all_of(FAMILIES.iter().map(|family| (Ne, *family)))?, netlink_beyond_routes()?],
    );
    refused.insert(libc::SYS_socketpair, vec![all_of([(Ne, libc::AF_UNIX)])?]);
    refused.insert(libc::SYS_clone, with_any(NAMESPACES)?);
    refused.insert(libc::SYS_unshare, with_any(&[NAMESPACES, &[CLONE_NEWTIME]].concat())?);
    let typing: Result<Vec<_>, _> = TYPING.iter().map(|call| rule(1, Eq, *call)).collect();
    refused.insert(libc::SYS_ioctl, typing?);
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_mut, reason = "only x86_64 has a second interface")
    )]
    let mut absent: BTreeMap<i64, Vec<SeccompRule>> = ABSENT.iter().map(|call| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    absent.extend((X32.0..X32.0 + X32.1).map(|call| (call, vec![])));
    Ok(vec![program(absent, libc::ENOSYS)?, program(refused, libc::EPERM)?])
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
}

/// A rule that holds when every comparison of the first argument's low half does: the kernel reads no more.
fn all_of(
    comparisons: impl IntoIterator<Item = (seccompiler::SeccompCmpOp, i32)>,
) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<_>, _> = comparisons
        .into_iter()
        .map(|(comparison, value)| SeccompCondition::new(0, Dword, comparison, value as u32 as u64))
        .collect();
    SeccompRule::new(conditions?)
}

/// Netlink but for the routing table, which `getaddrinfo` reads: of the others one passes messages between
/// programs, and one lists everybody's sockets.
fn netlink_beyond_routes() -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Eq, libc::AF_NETLINK as u64)?,
        SeccompCondition::new(2, Dword, Ne, libc::NETLINK_ROUTE as u64)?,
    ])
}

/// Rules of which one holds when the first argument has any of `flags`.
fn with_any(flags: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    flags.iter().map(|flag| *flag as u32 as u64).map(|flag| rule(0, MaskedEq(flag), flag)).collect()
}

fn rule(
    argument: u8,
    comparison: seccompiler::SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, comparison, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_within_the_kernels_limit() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|filter| filter.len() < 4096), "{:?}", filters.iter().map(Vec::len));
    }
}
