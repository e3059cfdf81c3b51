//! Links between a program and a cgroup, by the kernel's own calls: `aya` attaches socket options and
//! socket operations too, but gives out no link of theirs that could be pinned.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;

/// The attach type of a program: `enum bpf_attach_type` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Hook {
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Setsockopt = 22,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

/// The first members of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// The first members of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjectPin {
    path: u64,
    object: u32,
    flags: u32,
}

/// Attaches a program to a cgroup. It is in force until the descriptor and every pin of it are gone.
///
/// No flags: links stand beside each other whatever they say, and the kernel refuses those that say it.
pub(super) fn create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: hook as u32,
        flags: 0,
    };
    let made = call(BPF_LINK_CREATE, &attributes)?;
    // SAFETY: the call made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Gives a link or a program a name on a bpffs, under which it outlives us.
pub(super) fn pin(link: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        ObjectPin { path: path.as_ptr() as u64, object: link.as_fd().as_raw_fd().cast_unsigned(), flags: 0 };
    call(BPF_OBJ_PIN, &attributes).map(|_| ())
}

/// The first members of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct ObjectInfo {
    object: u32,
    size: u32,
    info: u64,
}

/// The first members of `struct bpf_link_info`, for a link to a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    padding_after: u32,
}

/// The id of the cgroup that a pinned link is attached to; 0 once that cgroup is gone, and the link with
/// it.
pub(super) fn cgroup(path: &Path) -> io::Result<u64> {
    let link = pinned(path)?;
    let mut info = LinkInfo::default();
    let attributes = ObjectInfo {
        object: link.as_raw_fd().cast_unsigned(),
        size: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    Ok(info.cgroup)
}

/// Opens the object that is pinned at `path`.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectPin { path: path.as_ptr() as u64, object: 0, flags: 0 };
    let found = call(BPF_OBJ_GET, &attributes)?;
    // SAFETY: the call made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are initialised, live for the whole call, and their size is given; what they
    // point to lives in the callers for as long.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(done).map_err(io::Error::other) }
}
