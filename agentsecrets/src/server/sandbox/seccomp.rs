//! Seccomp filters of the interceptor and its helpers. They deny every system call that is not listed, so
//! that an exploited process has little kernel surface.

use std::collections::BTreeMap;
use std::io;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

/// Calls of every process: memory, time, futexes, files by descriptor, and exit.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
];

/// Further calls of a serving process: sockets, our files, threads, polling.
const SERVING: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_getuid,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_membarrier,
    libc::SYS_mkdirat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_openat,
    libc::SYS_pidfd_open,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sendmmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_statfs,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Legacy variants of some of them.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[i64] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[i64] = &[];

/// Calls of an event loop.
const EVENT_LOOP: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_readv,
    libc::SYS_shutdown,
    libc::SYS_writev,
];

/// `bpf` commands: look up, delete, and take a map entry.
const BPF_COMMANDS: [i64; 3] = [1, 3, 21];

/// `ioctl` requests about descriptors and about a terminal's size and settings; none changes the terminal.
const IOCTL_REQUESTS: [i64; 5] = [0x5401, 0x5413, 0x541b, 0x5421, 0x5451];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Restricts all threads to the calls of a serving process; with `has_maps`, the eBPF map commands too.
pub(crate) fn allow_serving(has_maps: bool) -> io::Result<()> {
    let mut rules: Rules = COMMON.iter().chain(SERVING).chain(LEGACY).map(|call| (*call, vec![])).collect();
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    rules.insert(libc::SYS_socket, one_of(0, families.map(i64::from))?);
    rules.insert(libc::SYS_socketpair, one_of(0, [i64::from(libc::AF_UNIX)])?);
    if has_maps {
        rules.insert(libc::SYS_bpf, one_of(0, BPF_COMMANDS)?);
    }
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTL_REQUESTS)?);
    rules.insert(libc::SYS_prctl, one_of(0, [i64::from(libc::PR_SET_NAME)])?);
    // Threads only, no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![rule(0, MaskedEq(thread), thread)?]);
    // It may end itself by a signal, and no other process.
    rules.insert(libc::SYS_tgkill, one_of(0, [i64::from(std::process::id())])?);
    // It may read its limits, not set them.
    let none = SeccompCondition::new(2, Qword, Eq, 0).map_err(io::Error::other)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![none]).map_err(io::Error::other)?]);
    rules.extend(no_executable_memory()?);
    // A filter cannot read the arguments of `clone3`; with ENOSYS, libc falls back to `clone`.
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    apply(BTreeMap::from([(libc::SYS_clone3, vec![])]), absent, SeccompAction::Allow)?;
    rules.insert(libc::SYS_clone3, vec![]);
    apply(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// Restricts the process inspector to reading files and answering.
pub(super) fn allow_inspecting() -> io::Result<()> {
    let mut rules: Rules = COMMON.iter().map(|call| (*call, vec![])).collect();
    rules.insert(libc::SYS_getdents64, vec![]);
    // Read-only: the capability to read another process's memory is one to write it.
    let not_for_reading = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    rules.insert(libc::SYS_openat, vec![rule(2, MaskedEq(not_for_reading), 0)?]);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_open, vec![rule(1, MaskedEq(not_for_reading), 0)?]);
        rules.insert(libc::SYS_readlink, vec![]);
    }
    rules.insert(libc::SYS_prctl, one_of(0, [i64::from(libc::PR_SET_PDEATHSIG)])?);
    rules.extend(no_executable_memory()?);
    apply(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// Restricts the container engine's client to local sockets.
pub(super) fn allow_local_client() -> io::Result<()> {
    allow_client_calls(BTreeMap::new())
}

/// Restricts the Workload API's client to local sockets and an event loop.
pub(super) fn allow_local_watcher() -> io::Result<()> {
    let mut waiting: Rules = EVENT_LOOP.iter().map(|call| (*call, vec![])).collect();
    waiting.insert(libc::SYS_socketpair, one_of(0, [i64::from(libc::AF_UNIX)])?);
    waiting.insert(libc::SYS_ioctl, one_of(1, [libc::FIONBIO as i64])?);
    allow_client_calls(waiting)
}

fn allow_client_calls(more: Rules) -> io::Result<()> {
    let mut rules: Rules = COMMON.iter().map(|call| (*call, vec![])).chain(more).collect();
    let speaking =
        [libc::SYS_connect, libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_setsockopt, libc::SYS_write];
    rules.extend(speaking.map(|call| (call, vec![])));
    rules.insert(libc::SYS_socket, one_of(0, [i64::from(libc::AF_UNIX)])?);
    rules.insert(libc::SYS_prctl, one_of(0, [i64::from(libc::PR_SET_PDEATHSIG)])?);
    rules.extend(no_executable_memory()?);
    apply(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// Denies executable memory.
fn no_executable_memory() -> io::Result<Rules> {
    let executable = libc::PROT_EXEC as u64;
    let rules = [libc::SYS_mmap, libc::SYS_mprotect];
    rules.into_iter().map(|call| Ok((call, vec![rule(2, MaskedEq(executable), 0)?]))).collect()
}

/// Applies `named` to the calls in `rules` and `others` to the rest.
fn apply(rules: Rules, named: SeccompAction, others: SeccompAction) -> io::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, others, named, arch).map_err(io::Error::other)?;
    let program = BpfProgram::try_from(filter).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// Rules that match if the argument's low half is one of `values`, which is all that the kernel compares.
fn one_of(argument: u8, values: impl IntoIterator<Item = i64>) -> io::Result<Vec<SeccompRule>> {
    values.into_iter().map(|value| rule(argument, Eq, value as u64)).collect()
}

fn rule(argument: u8, comparison: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, Dword, comparison, value).map_err(io::Error::other)?;
    SeccompRule::new(vec![condition]).map_err(io::Error::other)
}
