//! The process inspector: a small process that inspects other processes for the interceptor. To inspect a program of
//! another user needs a privilege, and a process under Landlock cannot inspect any. The process that reads hostile
//! bytes has neither the privilege nor the access; the inspector has both and reads no byte of an agent. It answers
//! requests about a process id (facts, script, ancestry) and finds the process that holds a socket.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::container::cgroup_of;
use super::executable::{Hashes, hash};
use crate::identity::IdentityError;
use crate::identity::Process;
use crate::identity::ancestry::start_of;
use crate::identity::process_details::{self, Ancestor, ProcessDetails, Script, Timed};
use crate::identity::socket_owner;
use crate::privsep::helper::{RequestChannel, Response, invalid_response as unclear};
use crate::sys;
use crate::types::sync::MutexExt;

/// Time limit for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests of the protocol.
const WHO: u8 = b'?';
const SCRIPT: u8 = b's';
const ANCESTRY: u8 = b'a';
const HOLDER: u8 = b'h';
const HOLDS: u8 = b'o';

/// The kernel's facts about a process.
pub struct InspectedProcess {
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// The path of its executable.
    pub exe: PathBuf,
    /// Its path in the unified hierarchy of cgroups.
    pub cgroup: String,
    /// Its executable, open: what is read of it is what runs, whatever its name leads to by then.
    pub file: File,
}

/// Inspects processes, in this process or in a helper.
pub enum ProcessInspector {
    /// This process itself.
    Here,
    /// The process at the other end.
    There(RemoteInspector),
}

/// The channel to an inspector process.
pub struct RemoteInspector(Mutex<RequestChannel>);

impl ProcessInspector {
    /// Forks the inspector process, which drops privileges by `confine`. The calling process must have one thread.
    /// The inspector ends when the last copy of the channel closes.
    pub fn start(confine: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        Ok(Self::There(RemoteInspector(Mutex::new(RequestChannel::fork(
            RESPONSE_TIMEOUT,
            confine,
            respond,
        )?))))
    }

    /// Looks at the process `pid`. What it says holds for the process that had this id then.
    pub fn inspect(&self, pid: u32) -> Result<InspectedProcess, IdentityError> {
        match self {
            Self::Here => inspect_here(pid),
            Self::There(line) => {
                let (answer, file) = line.ask(WHO, pid, 0)?;
                decode(&answer, file)
            }
        }
    }

    /// Looks for the process that holds the socket `inode`.
    pub fn socket_owner(&self, inode: u64) -> Result<u32, IdentityError> {
        match self {
            Self::Here => socket_owner::holder(inode),
            Self::There(line) => holding(&line.ask(HOLDER, 0, inode)?.0),
        }
    }

    /// Fails unless the process `pid` holds the socket `inode` now.
    pub fn owns_socket(&self, pid: u32, inode: u64) -> Result<(), IdentityError> {
        match self {
            Self::Here => socket_owner::holds(pid, inode).then_some(()).ok_or(IdentityError::Gone),
            Self::There(line) => holding(&line.ask(HOLDS, pid, inode)?.0).map(drop),
        }
    }

    fn details<T: DeserializeOwned>(
        &self,
        kind: u8,
        process: &Process,
        here: impl FnOnce(u32) -> Result<Timed<T>, IdentityError>,
    ) -> Result<T, IdentityError> {
        let (start_time, seen) = match self {
            Self::Here => here(process.pid)?,
            Self::There(line) => {
                let (answer, _) = line.ask(kind, process.pid, 0)?;
                serde_json::from_slice(&answer).map_err(|_| unclear())?
            }
        };
        if start_time == process.start_time { Ok(seen) } else { Err(IdentityError::Gone) }
    }
}

impl ProcessDetails for ProcessInspector {
    fn process(&self, pid: u32) -> Result<Process, IdentityError> {
        inspect_now(self, pid)
    }

    fn inside(&self, pid: u32, who: &Process) -> Result<u32, IdentityError> {
        // Anybody may see this.
        process_details::inside(pid, who)
    }

    fn script(&self, process: &Process) -> Result<Option<Script>, IdentityError> {
        self.details(SCRIPT, process, process_details::script)
    }

    fn ancestry(&self, process: &Process) -> Result<Vec<Ancestor>, IdentityError> {
        self.details(ANCESTRY, process, process_details::ancestry)
    }
}

impl RemoteInspector {
    /// Asks about a process and a socket.
    fn ask(&self, kind: u8, pid: u32, inode: u64) -> Result<Response, IdentityError> {
        let question = [&[kind][..], &pid.to_be_bytes(), &inode.to_be_bytes()].concat();
        let mut line = self.0.lock_ignoring_poison();
        let mut response = line.request(&question)?;
        let file = response.descriptors.pop();
        Ok((check_response(&response.body)?.to_vec(), file))
    }
}

/// The answer to a question, and a file that goes with it.
fn respond(question: &[u8]) -> Response {
    let parts =
        question.split_first_chunk::<5>().and_then(|(head, rest)| Some((*head, rest.try_into().ok()?)));
    let Some(([kind, a, b, c, d], inode)) = parts else { return (b"-".to_vec(), None) };
    let (pid, inode) = (u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(inode));
    let response = |pid: u32| (pid.to_be_bytes().to_vec(), None);
    let answer = match kind {
        SCRIPT => process_details::script(pid).and_then(encode).map(|text| (text, None)),
        ANCESTRY => process_details::ancestry(pid).and_then(encode).map(|text| (text, None)),
        HOLDER => socket_owner::holder(inode).map(response),
        HOLDS => socket_owner::holds(pid, inode).then(|| response(pid)).ok_or(IdentityError::Gone),
        _ => inspect_here(pid).map(|seen| (who(&seen), Some(seen.file.into()))),
    };
    match answer {
        Ok((mut text, file)) => {
            text.insert(0, b'+');
            (text, file)
        }
        Err(IdentityError::Io(error)) => ([&b"!"[..], error.to_string().as_bytes()].concat(), None),
        Err(IdentityError::Nobody) => (b"n".to_vec(), None),
        Err(IdentityError::Shared) => (b"s".to_vec(), None),
        Err(_) => (b"-".to_vec(), None),
    }
}

fn encode<T: Serialize>(seen: Timed<T>) -> Result<Vec<u8>, IdentityError> {
    serde_json::to_vec(&seen).map_err(|error| io::Error::other(error).into())
}

fn who(seen: &InspectedProcess) -> Vec<u8> {
    let (exe, cgroup) = (seen.exe.as_os_str().as_bytes(), seen.cgroup.as_bytes());
    [&seen.start_time.to_be_bytes()[..], &(exe.len() as u64).to_be_bytes(), exe, cgroup].concat()
}

/// The content of a response, unless it is an error.
fn check_response(answer: &[u8]) -> Result<&[u8], IdentityError> {
    match answer.split_first().ok_or_else(unclear)? {
        (b'+', rest) => Ok(rest),
        (b'-', _) => Err(IdentityError::Gone),
        (b'n', _) => Err(IdentityError::Nobody),
        (b's', _) => Err(IdentityError::Shared),
        (_, rest) => Err(io::Error::other(String::from_utf8_lossy(rest).into_owned()).into()),
    }
}

/// Parses a response with the owner of a socket.
fn holding(answer: &[u8]) -> Result<u32, IdentityError> {
    Ok(answer.try_into().map(u32::from_be_bytes).map_err(|_| unclear())?)
}

/// Parses a response with the facts of a process.
fn decode(answer: &[u8], file: Option<OwnedFd>) -> Result<InspectedProcess, IdentityError> {
    let (start_time, rest) = answer.split_first_chunk().ok_or_else(unclear)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(unclear)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| unclear())?;
    let (exe, cgroup) = rest.split_at_checked(length).ok_or_else(unclear)?;
    Ok(InspectedProcess {
        start_time: u64::from_be_bytes(*start_time),
        exe: std::ffi::OsString::from_vec(exe.to_vec()).into(),
        cgroup: String::from_utf8(cgroup.to_vec()).map_err(|_| unclear())?,
        file: file.ok_or_else(unclear)?.into(),
    })
}

/// Looks at a process with the rights of this one.
fn inspect_here(pid: u32) -> Result<InspectedProcess, IdentityError> {
    let start_time = start_of(pid).ok_or(IdentityError::Gone)?;
    let link = format!("/proc/{pid}/exe");
    let file = File::open(&link)?;
    let exe = std::fs::read_link(&link)?;
    let cgroup = cgroup_of(pid)?.ok_or(IdentityError::Elsewhere)?;
    Ok(InspectedProcess { start_time, exe, cgroup, file })
}

/// The kernel's facts about the process `pid` now.
pub async fn look(pid: u32, hashes: &Hashes) -> Result<Process, IdentityError> {
    inspect_by(&ProcessInspector::Here, pid, hashes, |_, _| Ok(())).await
}

/// The same, read by `inspector`, if `is_right` accepts the process.
pub(super) async fn inspect_by(
    inspector: &ProcessInspector,
    pid: u32,
    hashes: &Hashes,
    is_right: impl FnOnce(&InspectedProcess, &Metadata) -> Result<(), IdentityError>,
) -> Result<Process, IdentityError> {
    let uid = || real_user(pid);
    prove(inspector, hashes, pid, uid, is_right).await
}

/// The real user of the process `pid`.
fn real_user(pid: u32) -> Result<u32, IdentityError> {
    let status = procfs::process::Process::new(pid as i32).and_then(|process| process.status());
    status.map(|status| status.ruid).map_err(|_| IdentityError::Gone)
}

/// The facts that `inspector` reads about the process `pid` now. Blocks, and caches no hash.
pub fn inspect_now(inspector: &ProcessInspector, pid: u32) -> Result<Process, IdentityError> {
    let pidfd = sys::pidfd_open(pid).map_err(|_| IdentityError::Gone)?;
    let uid = real_user(pid)?;
    let InspectedProcess { start_time, exe, cgroup, file } = inspector.inspect(pid)?;
    let metadata = file.metadata()?;
    let here = std::fs::metadata(&exe).is_ok_and(|there| same_file(&there, &metadata));
    let sha256 = hash(file)?;
    if !sys::pidfd_lives(&pidfd) {
        return Err(IdentityError::Gone);
    }
    Ok(Process { pid, start_time, exe: strip_deleted_suffix(exe), sha256, uid, cgroup, image: None, here })
}

/// The facts that `inspector` reads about the process `pid`, if `is_right` confirms that it is the intended
/// one.
pub(super) async fn prove(
    inspector: &ProcessInspector,
    hashes: &Hashes,
    pid: u32,
    uid: impl FnOnce() -> Result<u32, IdentityError>,
    is_right: impl FnOnce(&InspectedProcess, &Metadata) -> Result<(), IdentityError>,
) -> Result<Process, IdentityError> {
    // The pidfd names one process for good: if it still lives at the end, nobody took over its id.
    let pidfd = sys::pidfd_open(pid).map_err(|_| IdentityError::Gone)?;
    let seen = inspector.inspect(pid)?;
    let metadata = seen.file.metadata()?;
    is_right(&seen, &metadata)?;
    let InspectedProcess { start_time, exe, cgroup, file } = seen;
    let uid = uid()?;
    let sha256 = hashes.of(file).await?.to_string();
    if !sys::pidfd_lives(&pidfd) {
        return Err(IdentityError::Gone);
    }
    let here = std::fs::metadata(&exe).is_ok_and(|there| same_file(&there, &metadata));
    Ok(Process { pid, start_time, exe: strip_deleted_suffix(exe), sha256, uid, cgroup, image: None, here })
}

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// A file that was removed while it runs is shown with a mark; a rule's path must not match it.
fn strip_deleted_suffix(path: PathBuf) -> PathBuf {
    match path.to_str() {
        Some(text) if text.ends_with(" (deleted)") => PathBuf::from(format!("deleted:{text}")),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn inspector() -> ProcessInspector {
        ProcessInspector::There(RemoteInspector(Mutex::new(RequestChannel::to_thread(respond).unwrap())))
    }

    #[test]
    fn helper_and_local_inspection_agree() {
        let (pid, inspector) = (std::process::id(), inspector());
        for _ in 0..3 {
            let (there, here) =
                (inspector.inspect(pid).unwrap(), ProcessInspector::Here.inspect(pid).unwrap());
            assert_eq!(there.start_time, here.start_time);
            assert_eq!((&there.exe, &there.cgroup), (&here.exe, &here.cgroup));
            assert_eq!(there.file.metadata().unwrap().ino(), here.file.metadata().unwrap().ino());
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino();
        assert_eq!(inspector.socket_owner(inode).unwrap(), pid);
        assert!(inspector.owns_socket(pid, inode).is_ok() && inspector.owns_socket(1, inode).is_err());
        drop(listener);
        assert!(matches!(inspector.socket_owner(inode), Err(IdentityError::Nobody)));
        let process = Process { pid, start_time: start_of(pid).unwrap(), ..Process::for_test() };
        assert_eq!(inspector.ancestry(&process).unwrap(), ProcessInspector::Here.ancestry(&process).unwrap());
        assert_eq!(inspector.script(&process).unwrap(), ProcessInspector::Here.script(&process).unwrap());
        let recycled = Process { start_time: 1, ..process };
        assert!(matches!(inspector.ancestry(&recycled), Err(IdentityError::Gone)));
    }

    #[test]
    fn malformed_response_is_refused() {
        for answer in [&b""[..], b"1234567812345678/exe", b"?", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
            assert!(decode(answer, None).is_err() && holding(answer).is_err(), "{answer:?}");
        }
        assert!(check_response(b"").is_err() && check_response(b"?").is_err());
        assert!(matches!(check_response(b"-"), Err(IdentityError::Gone)));
    }
}
