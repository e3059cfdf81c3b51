//! Seccomp filters of an agent: they deny system calls that could leave the hooks' sight or control the
//! kernel. For calls that need a capability they are a second wall; for socket families, terminals and user
//! namespaces the only one.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

/// Denied with EPERM.
const DENIED_CALLS: &[i64] = &[
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

/// Answered with ENOSYS, as by an older kernel, so that programs fall back to calls that a filter can judge:
/// it cannot read the arguments of `clone3` or the requests in a ring.
const UNIMPLEMENTED_CALLS: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup];

/// Socket families that the hooks see, or that stay on this machine.
const ALLOWED_FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Namespaces that a new process may not get. CLONE_NEWTIME shares its bit with clone's exit signal.
const NAMESPACE_FLAGS: &[i32] = &[
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
const TERMINAL_INJECTION: &[u64] = &[0x5412, 0x541c];

/// The bit of every system call of the x32 interface, and one more than its highest number.
#[cfg(target_arch = "x86_64")]
const X32: (i64, i64) = (0x4000_0000, 600);

/// The filters in the order of their application, which is the last step before `execve`.
pub(crate) fn agent_filters() -> Result<Vec<BpfProgram>, BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED_CALLS.iter().map(|call| (*call, vec![])).collect();
    refused.insert(
        libc::SYS_socket,
        vec![all_of(ALLOWED_FAMILIES.iter().map(|family| (Ne, *family)))?, other_netlink_protocols()?],
    );
    refused.insert(libc::SYS_socketpair, vec![all_of([(Ne, libc::AF_UNIX)])?]);
    refused.insert(libc::SYS_clone, any_flag_of(NAMESPACE_FLAGS)?);
    refused.insert(libc::SYS_unshare, any_flag_of(&[NAMESPACE_FLAGS, &[CLONE_NEWTIME]].concat())?);
    let typing: Result<Vec<_>, _> = TERMINAL_INJECTION.iter().map(|call| rule(1, Eq, *call)).collect();
    refused.insert(libc::SYS_ioctl, typing?);
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_mut, reason = "only x86_64 has a second interface")
    )]
    let mut absent: BTreeMap<i64, Vec<SeccompRule>> =
        UNIMPLEMENTED_CALLS.iter().map(|call| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    absent.extend((X32.0..X32.0 + X32.1).map(|call| (call, vec![])));
    Ok(vec![program(absent, libc::ENOSYS)?, program(refused, libc::EPERM)?])
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
}

/// A rule that matches if every comparison of the first argument's low half does: the kernel reads no more.
fn all_of(
    comparisons: impl IntoIterator<Item = (seccompiler::SeccompCmpOp, i32)>,
) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<_>, _> = comparisons
        .into_iter()
        .map(|(comparison, value)| SeccompCondition::new(0, Dword, comparison, value as u32 as u64))
        .collect();
    SeccompRule::new(conditions?)
}

/// Netlink except for the routing table, which `getaddrinfo` reads: another protocol passes messages between
/// programs, and one lists all sockets.
fn other_netlink_protocols() -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Eq, libc::AF_NETLINK as u64)?,
        SeccompCondition::new(2, Dword, Ne, libc::NETLINK_ROUTE as u64)?,
    ])
}

/// Rules that match if the first argument has any of `flags`.
fn any_flag_of(flags: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
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
    fn filters_fit_the_kernel_limit() {
        let filters = agent_filters().unwrap();
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|filter| filter.len() < 4096), "{:?}", filters.iter().map(Vec::len));
    }
}
