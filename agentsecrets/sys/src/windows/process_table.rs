//! The owner of the other end of a connection: the system's table of connections gives a process, and a
//! handle of that process keeps its id from being reused during the inspection.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, ERROR_SUCCESS, FILETIME, LocalFree};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, MIB_TCP_STATE_ESTAB, MIB_TCP6ROW_OWNER_PID, MIB_TCPROW_OWNER_PID,
    TCP_TABLE_OWNER_PID_CONNECTIONS,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};
use windows_sys::Win32::Security::Authorization::ConvertSidToStringSidW;
use windows_sys::Win32::Security::{
    EqualSid, GetSidSubAuthority, GetSidSubAuthorityCount, GetTokenInformation, PSID, TOKEN_QUERY,
    TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetExitCodeProcess, GetProcessTimes, OpenProcess, OpenProcessToken,
    PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};

use super::call::done;

/// The exit code of a process that has none yet.
const STILL_ACTIVE: u32 = 259;
/// The longest path of an executable, in UTF-16 units.
const MAX_PATH_LEN: usize = 32 * 1024;

/// A process. While this lives, no other gets its id.
pub struct Program {
    pid: u32,
    handle: OwnedHandle,
}

/// The user of a process, in a buffer that holds a `TOKEN_USER`.
pub(super) struct Sid(Vec<u64>);

/// The process that holds the end `theirs` of a connection to `ours`, if the system knows one.
pub fn caller_of(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    let (theirs, ours) = (canonical(theirs), canonical(ours));
    for row in table::<MIB_TCPROW_OWNER_PID>(AF_INET)? {
        let end = |address: u32, port| (IpAddr::from(address.to_ne_bytes()), host_order(port));
        let ends = (end(row.dwLocalAddr, row.dwLocalPort), end(row.dwRemoteAddr, row.dwRemotePort));
        if ends == (theirs, ours) && row.dwState == MIB_TCP_STATE_ESTAB as u32 {
            return Ok(known(row.dwOwningPid));
        }
    }
    // A client of both families has its connections in the second table.
    for row in table::<MIB_TCP6ROW_OWNER_PID>(AF_INET6)? {
        let end = |address, port| (Ipv6Addr::from(address).to_canonical(), host_order(port));
        let ends = (end(row.ucLocalAddr, row.dwLocalPort), end(row.ucRemoteAddr, row.dwRemotePort));
        if ends == (theirs, ours) && row.dwState == MIB_TCP_STATE_ESTAB as u32 {
            return Ok(known(row.dwOwningPid));
        }
    }
    Ok(None)
}

fn known(pid: u32) -> Option<u32> {
    (pid != 0).then_some(pid)
}

fn canonical(end: SocketAddr) -> (IpAddr, u16) {
    (end.ip().to_canonical(), end.port())
}

/// A port as the tables have it, in the order of the network.
fn host_order(port: u32) -> u16 {
    u16::from_be(port as u16)
}

/// The connections of a family: their number, then rows of the type `Row`, which must be that family's.
fn table<Row: Copy>(family: u16) -> io::Result<Vec<Row>> {
    let mut buffer: Vec<u32> = vec![0; 4096];
    loop {
        let mut size = u32::try_from(buffer.len() * 4).map_err(io::Error::other)?;
        let (of, kind) = (u32::from(family), TCP_TABLE_OWNER_PID_CONNECTIONS);
        // SAFETY: the system writes at most `size` bytes to the buffer.
        let code = unsafe { GetExtendedTcpTable(buffer.as_mut_ptr().cast(), &raw mut size, 0, of, kind, 0) };
        match code {
            ERROR_SUCCESS => break,
            ERROR_INSUFFICIENT_BUFFER => buffer.resize((size as usize).div_ceil(4) + 1024, 0),
            code => return Err(io::Error::from_raw_os_error(code as i32)),
        }
    }
    let (count, rows) = buffer.split_first().ok_or(io::ErrorKind::InvalidData)?;
    let room = rows.len() * 4 / size_of::<Row>();
    let count = room.min(*count as usize);
    // SAFETY: the rows are structures of numbers alone, aligned as these are, and `count` of them are there.
    Ok((0..count).map(|at| unsafe { rows.as_ptr().cast::<Row>().add(at).read_unaligned() }).collect())
}

/// The id of the process that started this one, if it still is that one.
pub fn parent() -> io::Result<u32> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the process that started this one is gone");
    // SAFETY: takes no pointer, and gives a handle that is ours alone.
    let list = unsafe {
        let list = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
        if list.is_null() || list as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        OwnedHandle::from_raw_handle(list)
    };
    let mut entry = PROCESSENTRY32W { dwSize: size_of::<PROCESSENTRY32W>() as u32, ..Default::default() };
    // SAFETY: the handle is open, and the entry says how large it is.
    let mut more = unsafe { Process32FirstW(list.as_raw_handle(), &raw mut entry) };
    while more != 0 && entry.th32ProcessID != std::process::id() {
        // SAFETY: as above.
        more = unsafe { Process32NextW(list.as_raw_handle(), &raw mut entry) };
    }
    let pid = entry.th32ParentProcessID;
    let younger = || -> io::Result<bool> {
        Ok(Program::open(pid)?.start_time()? > Program::open(std::process::id())?.start_time()?)
    };
    // An id that was given again belongs to a process that started later than we did.
    if more == 0 || pid == 0 || younger()? { Err(gone()) } else { Ok(pid) }
}

impl Program {
    /// The process that has the id `pid` now, if we may look at it.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: takes no pointer, and gives a handle that is ours alone.
        let handle = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the system has just made it for us.
        Ok(Self { pid, handle: unsafe { OwnedHandle::from_raw_handle(handle) } })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in units of 100 ns since 1601.
    pub fn start_time(&self) -> io::Result<u64> {
        let mut times = [FILETIME::default(); 4];
        let [made, ended, kernel, user] = &mut times;
        // SAFETY: the handle is open, and the system fills structures that live across the call.
        done(unsafe { GetProcessTimes(self.handle.as_raw_handle(), made, ended, kernel, user) })?;
        Ok(u64::from(made.dwHighDateTime) << 32 | u64::from(made.dwLowDateTime))
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> io::Result<bool> {
        let mut code = 0;
        // SAFETY: the handle is open, and the system fills a number that lives across the call.
        done(unsafe { GetExitCodeProcess(self.handle.as_raw_handle(), &raw mut code) })?;
        Ok(code == STILL_ACTIVE)
    }

    /// The path of its executable.
    pub fn executable(&self) -> io::Result<PathBuf> {
        let mut path = vec![0; MAX_PATH_LEN];
        let mut length = MAX_PATH_LEN as u32;
        // SAFETY: the handle is open, and the system writes at most `length` units.
        done(unsafe {
            QueryFullProcessImageNameW(self.handle.as_raw_handle(), 0, path.as_mut_ptr(), &raw mut length)
        })?;
        Ok(OsString::from_wide(path.get(..length as usize).unwrap_or_default()).into())
    }

    /// Whether it runs as the user as whom we run.
    pub fn is_ours(&self) -> io::Result<bool> {
        let (theirs, own) = (Sid::of(self.handle.as_raw_handle())?, own_sid()?);
        // SAFETY: both are valid identifiers that live across the call.
        Ok(unsafe { EqualSid(theirs.as_ptr(), own.as_ptr()) } != 0)
    }

    /// The number of its user within the machine or domain.
    pub fn user(&self) -> io::Result<u32> {
        Sid::of(self.handle.as_raw_handle()).map(|sid| sid.last())
    }
}

/// As whom we run.
pub(super) fn own_sid() -> io::Result<Sid> {
    // SAFETY: takes and gives no pointer: a name for this process itself.
    Sid::of(unsafe { GetCurrentProcess() })
}

impl Sid {
    fn of(process: std::os::windows::io::RawHandle) -> io::Result<Self> {
        let mut token = null_mut();
        // SAFETY: the handle is open, and the system fills a place that lives across the call.
        done(unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) })?;
        // SAFETY: the system has just made it for us.
        let token = unsafe { OwnedHandle::from_raw_handle(token) };
        // Larger than the longest identifier, and aligned for the structure before it.
        let mut buffer = vec![0_u64; 32];
        let mut length = 0;
        // SAFETY: the system writes at most the given length to the buffer.
        done(unsafe {
            GetTokenInformation(
                token.as_raw_handle(),
                TokenUser,
                buffer.as_mut_ptr().cast(),
                (buffer.len() * size_of::<u64>()) as u32,
                &raw mut length,
            )
        })?;
        Ok(Self(buffer))
    }

    /// Valid for as long as `self`: it points into its buffer on the heap.
    pub(super) fn as_ptr(&self) -> PSID {
        // SAFETY: the buffer holds this structure, which the system has written.
        unsafe { (*self.0.as_ptr().cast::<TOKEN_USER>()).User.Sid }
    }

    /// As people write it: `S-1-5-…`.
    pub(super) fn text(&self) -> io::Result<String> {
        let mut text = null_mut();
        // SAFETY: the identifier is valid; the system allocates the text, which is freed below.
        done(unsafe { ConvertSidToStringSidW(self.as_ptr(), &raw mut text) })?;
        // SAFETY: the text ends in a zero, and is read before it is freed.
        unsafe {
            let length = (0..).take_while(|at| *text.add(*at) != 0).count();
            let copy = String::from_utf16_lossy(std::slice::from_raw_parts(text, length));
            LocalFree(text.cast());
            Ok(copy)
        }
    }

    fn last(&self) -> u32 {
        // SAFETY: the identifier is valid, and has at least one part.
        unsafe {
            let count = *GetSidSubAuthorityCount(self.as_ptr());
            *GetSidSubAuthority(self.as_ptr(), u32::from(count.saturating_sub(1)))
        }
    }
}
