//! macOS: `libproc`, which tells which process holds a connection and what that process is.

use std::ffi::OsString;
use std::io;
use std::mem::{offset_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use libc::{c_int, c_void, vinfo_stat};
use nix::sys::resource::{Resource, setrlimit};

/// The most that the system takes for a limit (`OPEN_MAX`), whatever it says is allowed.
pub(super) const MAX_DESCRIPTORS: Option<u64> = Some(10_240);

/// Asks for what a descriptor of a socket is (`PROC_PIDFDSOCKETINFO` of `sys/proc_info.h`).
const SOCKET_OF_DESCRIPTOR: c_int = 3;
/// The kind of a TCP socket (`SOCKINFO_TCP`).
const TCP: c_int = 2;
/// The state of a connection that stands (`TSI_S_ESTABLISHED`).
const ESTABLISHED: c_int = 4;
/// Its addresses are of the fourth version (`INI_IPV4`).
const IPV4: u8 = 1;

/// No core dumps, and no debugger that reads our memory.
pub fn conceal() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // SAFETY: this request takes no pointer, and is about this process itself.
    let done = unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same for a command.
pub fn protect_memory() -> io::Result<()> {
    conceal()
}

/// The command that lists listeners.
pub const LISTENERS: &str = "lsof -nP -iTCP -sTCP:LISTEN";

/// This program.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The system's facts about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// When it started, in microseconds since 1970.
    pub start_time: u64,
    /// Its real user.
    pub uid: u32,
}

impl Program {
    /// The process that has the id `pid` now, if we may look at it.
    pub fn of(pid: u32) -> io::Result<Self> {
        // SAFETY: a structure of numbers alone, for which zeros are values.
        let mut found: libc::proc_bsdinfo = unsafe { zeroed() };
        let size = size_of_val(&found) as c_int;
        // SAFETY: the system writes at most `size` bytes to a structure that lives across the call.
        let written = unsafe {
            libc::proc_pidinfo(number(pid)?, libc::PROC_PIDTBSDINFO, 0, (&raw mut found).cast(), size)
        };
        if written != size {
            return Err(io::Error::last_os_error());
        }
        let start_time =
            found.pbi_start_tvsec.saturating_mul(1_000_000).saturating_add(found.pbi_start_tvusec);
        Ok(Self { start_time, uid: found.pbi_ruid })
    }
}

/// The path of the executable of the process `pid`.
pub fn executable(pid: u32) -> io::Result<PathBuf> {
    let mut path = vec![0; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
    // SAFETY: the system writes at most the given length.
    let length = unsafe { libc::proc_pidpath(number(pid)?, path.as_mut_ptr().cast(), path.len() as u32) };
    if length <= 0 {
        return Err(io::Error::last_os_error());
    }
    path.truncate(length as usize);
    Ok(OsString::from_vec(path).into())
}

/// The processes that hold the end `theirs` of a connection to `ours`, as far as we may see: those of other
/// users show their sockets to root alone.
pub fn holders_of(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Vec<u32>> {
    Ok(processes()?.into_iter().filter(|pid| holds(*pid, theirs, ours)).collect())
}

/// Whether the process `pid` holds the end `theirs` of a connection to `ours`.
pub fn holds(pid: u32, theirs: SocketAddr, ours: SocketAddr) -> bool {
    let wanted = [theirs, ours].map(|end| (end.ip().to_canonical(), end.port()));
    let sockets = descriptors(pid).unwrap_or_default().into_iter();
    let mut sockets = sockets.filter(|descriptor| descriptor.proc_fdtype == libc::PROX_FDTYPE_SOCKET as u32);
    sockets.any(|descriptor| ends(pid, descriptor.proc_fd) == Some(wanted))
}

fn number(pid: u32) -> io::Result<c_int> {
    c_int::try_from(pid).map_err(io::Error::other)
}

fn processes() -> io::Result<Vec<u32>> {
    let pids: Vec<c_int> = listed(1024, |buffer, size| {
        // SAFETY: the system writes at most `size` bytes to the buffer, and says how many ids that are.
        let count = unsafe { libc::proc_listallpids(buffer, size) };
        count.saturating_mul(size_of::<c_int>() as c_int)
    })?;
    Ok(pids.into_iter().filter_map(|pid| u32::try_from(pid).ok().filter(|pid| *pid != 0)).collect())
}

fn descriptors(pid: u32) -> io::Result<Vec<libc::proc_fdinfo>> {
    let pid = number(pid)?;
    listed(256, |buffer, size| {
        // SAFETY: the system writes at most `size` bytes to the buffer.
        unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, buffer, size) }
    })
}

/// The items that `ask` lists; it is called again with more room while the list fills all of it. `T` must be
/// a structure of numbers alone.
fn listed<T: Copy>(mut room: usize, ask: impl Fn(*mut c_void, c_int) -> c_int) -> io::Result<Vec<T>> {
    loop {
        // SAFETY: zeros are a value of such a structure.
        let mut buffer: Vec<T> = vec![unsafe { zeroed() }; room];
        let written = ask(buffer.as_mut_ptr().cast(), (room * size_of::<T>()) as c_int);
        if written <= 0 {
            return Err(io::Error::last_os_error());
        }
        let count = written as usize / size_of::<T>();
        if count < room {
            buffer.truncate(count);
            return Ok(buffer);
        }
        room *= 2;
    }
}

/// Both ends of a descriptor that is an established TCP connection: its own, and the other.
fn ends(pid: u32, descriptor: c_int) -> Option<[(IpAddr, u16); 2]> {
    // SAFETY: a structure of numbers alone, for which zeros are values.
    let mut found: SocketOfDescriptor = unsafe { zeroed() };
    let size = size_of_val(&found) as c_int;
    // SAFETY: the system writes at most `size` bytes to a structure that lives across the call.
    let written = unsafe {
        let into = (&raw mut found).cast();
        libc::proc_pidfdinfo(number(pid).ok()?, descriptor, SOCKET_OF_DESCRIPTOR, into, size)
    };
    if written < size || found.kind != TCP || found.tcp.state != ESTABLISHED {
        return None;
    }
    let end = |address: [u8; 16], port: c_int| {
        let [.., a, b, c, d] = address;
        let ip = if found.tcp.version & IPV4 != 0 {
            IpAddr::from(Ipv4Addr::new(a, b, c, d))
        } else {
            Ipv6Addr::from(address).to_canonical()
        };
        // In the order of the network, in the lower half.
        (ip, u16::from_be(port as u16))
    };
    Some([end(found.tcp.own_address, found.tcp.own_port), end(found.tcp.other_address, found.tcp.other_port)])
}

/// `socket_fdinfo` of `sys/proc_info.h`, as far as TCP needs it; the C library's crate lacks it.
#[repr(C)]
struct SocketOfDescriptor {
    /// `pfi`.
    _file: [u64; 3],
    /// `psi.soi_stat`.
    _stat: vinfo_stat,
    /// `soi_so`, `soi_pcb`.
    _addresses: [u64; 2],
    /// `soi_type`, `soi_protocol`, `soi_family`.
    _types: [c_int; 3],
    /// `soi_options` to `soi_error`.
    _options: [u16; 8],
    /// `soi_oobmark`.
    _mark: u32,
    /// `soi_rcv`, `soi_snd`.
    _buffers: [[u32; 6]; 2],
    /// `soi_kind`.
    kind: c_int,
    /// `rfu_1`.
    _reserved: u32,
    /// `soi_proto.pri_tcp`.
    tcp: TcpSocket,
    /// The rest of the union's largest member.
    _rest: [u64; 51],
}

/// `tcp_sockinfo`, whose first part is `in_sockinfo`.
#[repr(C)]
struct TcpSocket {
    other_port: c_int,
    own_port: c_int,
    _generation: u64,
    _flags: [u32; 2],
    version: u8,
    _hops: u8,
    _reserved: u32,
    other_address: [u8; 16],
    own_address: [u8; 16],
    /// `insi_v4`, `insi_v6`.
    _more: [u32; 4],
    state: c_int,
    _timers: [c_int; 4],
    _segment: c_int,
    _tcp_flags: u32,
    _tcp_reserved: u32,
    _address: u64,
}

// What `cargo xtask systems` finds in the system's own header, by its own compiler: see `xtask/src/systems/macos.c`.
const _: () = {
    assert!(size_of::<vinfo_stat>() == 136 && size_of::<SocketOfDescriptor>() == 792);
    assert!(offset_of!(SocketOfDescriptor, kind) == 256 && offset_of!(SocketOfDescriptor, tcp) == 264);
    assert!(size_of::<TcpSocket>() == 120 && offset_of!(TcpSocket, state) == 80);
    assert!(offset_of!(TcpSocket, other_port) == 0 && offset_of!(TcpSocket, own_port) == 4);
    assert!(offset_of!(TcpSocket, version) == 24 && offset_of!(TcpSocket, other_address) == 32);
    assert!(offset_of!(TcpSocket, own_address) == 48);
};
