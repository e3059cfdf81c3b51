//! The witness: a small process that looks at other processes for the interceptor. Looking at a program
//! of another user takes a privilege, and a process that Landlock confines may look at none at all; so
//! that the one which reads hostile bytes has neither the privilege nor its reach, this one has it,
//! reads no byte of an agent, and answers two questions: who is the process with
//! this id, and which process holds this socket?

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::setsid;

use super::IdentityError;
use crate::base::sys::{process, terminal};

/// Longer than any answer: two paths of the longest kind, and numbers.
const LONGEST: usize = 16 * 1024;
/// How long an answer may take, in seconds.
const PATIENCE: i64 = 5;

/// What the kernel says of a process.
pub struct Seen {
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Where its executable is.
    pub exe: PathBuf,
    /// Its path in the unified hierarchy of cgroups.
    pub cgroup: String,
    /// Its executable, open: what is read of it is what runs, whatever its name leads to by then.
    pub file: File,
}

/// Who looks at processes.
pub enum Witness {
    /// This process itself.
    Here,
    /// The process at the other end.
    There(Mutex<Line>),
}

/// The line to a witness.
pub struct Line {
    socket: OwnedFd,
    asked: u64,
}

impl Witness {
    /// Forks the witness, which gives up by `confine` what it does not need. The calling process must have
    /// one thread; the witness ends when the last copy of the line closes.
    pub fn start(confine: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        process::fork(|| match testify(&theirs, confine) {
            Ok(()) => 0,
            Err(_) => 1,
        })?;
        setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        Ok(Self::There(Mutex::new(Line { socket: ours, asked: 0 })))
    }

    /// Looks at the process `pid`. What it says holds for the process that had this id then.
    pub fn see(&self, pid: u32) -> Result<Seen, IdentityError> {
        match self {
            Self::Here => look(pid),
            Self::There(line) => line.lock().unwrap_or_else(PoisonError::into_inner).ask(pid, None, seen),
        }
    }

    /// Looks for the process that holds the socket `inode`.
    pub fn holder(&self, inode: u64) -> Result<u32, IdentityError> {
        match self {
            Self::Here => holder(inode),
            Self::There(line) => {
                line.lock().unwrap_or_else(PoisonError::into_inner).ask(0, Some(inode), holding)
            }
        }
    }

    /// Whether the process `pid` holds the socket `inode` now.
    pub fn holds(&self, pid: u32, inode: u64) -> Result<bool, IdentityError> {
        let answer = match self {
            Self::Here => return Ok(holds(pid, inode)),
            Self::There(line) => {
                line.lock().unwrap_or_else(PoisonError::into_inner).ask(pid, Some(inode), holding)
            }
        };
        match answer {
            Ok(found) => Ok(found == pid),
            Err(IdentityError::Nobody) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Line {
    /// Asks about a process, or about who holds a socket: that one, or whoever does.
    fn ask<T>(
        &mut self,
        pid: u32,
        inode: Option<u64>,
        understood: impl Fn(&[u8], Option<OwnedFd>) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        self.asked += 1;
        let mut question = [&self.asked.to_be_bytes()[..], &pid.to_be_bytes()].concat();
        question.extend(inode.into_iter().flat_map(u64::to_be_bytes));
        terminal::send(&self.socket, &question, None)?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, file) = terminal::receive(&self.socket, &mut buffer)?;
            let answer = buffer.get(..length).unwrap_or_default();
            if answer.is_empty() {
                return Err(io::Error::other("the witness is gone").into());
            }
            let Some((number, answer)) = answer.split_first_chunk() else { return Err(unclear()) };
            // An answer to a question that we gave up on is not an answer to this one.
            if u64::from_be_bytes(*number) == self.asked {
                return match answer.split_first().ok_or_else(unclear)? {
                    (b'-', _) => Err(IdentityError::Gone),
                    (b'n', _) => Err(IdentityError::Nobody),
                    (b's', _) => Err(IdentityError::Shared),
                    (b'!', why) => Err(io::Error::other(String::from_utf8_lossy(why).into_owned()).into()),
                    (b'+', rest) => understood(rest, file),
                    _ => Err(unclear()),
                };
            }
        }
    }
}

/// The life of the witness.
fn testify(socket: &OwnedFd, confine: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    process::close_all_but(&[socket.as_fd()])?;
    std::env::set_current_dir("/")?;
    confine()?;
    // After the change of user, which undoes it. The line tells, too, when there is nobody left to answer.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut question = [0; 20];
    loop {
        let length = terminal::receive(socket, &mut question)?.0;
        let Some((number, pid, inode)) = asked(question.get(..length).unwrap_or_default()) else {
            return Ok(());
        };
        let mut answer = number.to_vec();
        let told = match inode {
            None => look(pid).map(|seen| {
                answer.push(b'+');
                answer.extend(seen.start_time.to_be_bytes());
                answer.extend((seen.exe.as_os_str().len() as u64).to_be_bytes());
                answer.extend(seen.exe.as_os_str().as_bytes());
                answer.extend(seen.cgroup.as_bytes());
                Some(OwnedFd::from(seen.file))
            }),
            Some(inode) => {
                let found = match pid {
                    0 => holder(inode),
                    pid if holds(pid, inode) => Ok(pid),
                    _ => Err(IdentityError::Nobody),
                };
                found.map(|pid| {
                    answer.push(b'+');
                    answer.extend(pid.to_be_bytes());
                    None
                })
            }
        };
        let file = told.unwrap_or_else(|error| {
            answer.push(match error {
                IdentityError::Io(_) => b'!',
                IdentityError::Nobody => b'n',
                IdentityError::Shared => b's',
                _ => b'-',
            });
            if let IdentityError::Io(error) = error {
                answer.extend(error.to_string().bytes());
            }
            None
        });
        terminal::send(socket, &answer, file.as_ref())?;
    }
}

/// What a question asks: its number, a process, and a socket where it is about one.
fn asked(question: &[u8]) -> Option<([u8; 8], u32, Option<u64>)> {
    let (number, rest) = question.split_first_chunk()?;
    let (pid, rest) = rest.split_first_chunk()?;
    let inode = match rest {
        [] => None,
        rest => Some(u64::from_be_bytes(rest.try_into().ok()?)),
    };
    Some((*number, u32::from_be_bytes(*pid), inode))
}

/// What an answer says of a process.
fn seen(answer: &[u8], file: Option<OwnedFd>) -> Result<Seen, IdentityError> {
    let (start_time, rest) = answer.split_first_chunk().ok_or_else(unclear)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(unclear)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| unclear())?;
    let (exe, cgroup) = rest.split_at_checked(length).ok_or_else(unclear)?;
    Ok(Seen {
        start_time: u64::from_be_bytes(*start_time),
        exe: std::ffi::OsString::from_vec(exe.to_vec()).into(),
        cgroup: String::from_utf8(cgroup.to_vec()).map_err(|_| unclear())?,
        file: file.ok_or_else(unclear)?.into(),
    })
}

/// What an answer says of who holds a socket.
fn holding(answer: &[u8], _: Option<OwnedFd>) -> Result<u32, IdentityError> {
    answer.try_into().map(u32::from_be_bytes).map_err(|_| unclear())
}

fn unclear() -> IdentityError {
    io::Error::other("the witness cannot be understood").into()
}

/// Looks at a process with the rights of this one.
fn look(pid: u32) -> Result<Seen, IdentityError> {
    let start_time = start_time(pid)?;
    let link = format!("/proc/{pid}/exe");
    let file = File::open(&link)?;
    let exe = std::fs::read_link(&link)?;
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let cgroup = table.lines().find_map(|line| line.strip_prefix("0::")).ok_or(IdentityError::Elsewhere)?;
    Ok(Seen { start_time, exe, cgroup: cgroup.to_owned(), file })
}

/// The process that holds the socket: of several that run one program the oldest. Where they run different
/// ones, nobody knows who speaks.
fn holder(inode: u64) -> Result<u32, IdentityError> {
    let pids = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let holders: Vec<u32> = pids.filter(|pid| holds(*pid, inode)).collect();
    let program = |pid: &u32| {
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let process = std::fs::metadata(format!("/proc/{pid}")).ok()?;
        Some((exe.dev(), exe.ino(), process.uid()))
    };
    let first = holders.first().ok_or(IdentityError::Nobody)?;
    if holders.iter().any(|other| program(other).is_none() || program(other) != program(first)) {
        return Err(IdentityError::Shared);
    }
    holders
        .iter()
        .copied()
        .min_by_key(|pid| (start_time(*pid).unwrap_or(u64::MAX), *pid))
        .ok_or(IdentityError::Nobody)
}

/// Whether the process `pid` holds the socket. What may not be seen is not held by a program of our user.
fn holds(pid: u32, inode: u64) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&socket)))
}

/// Field 22 of `/proc/<pid>/stat`. The second field is the program's own name for itself, in brackets,
/// and may hold anything: what counts begins after the last bracket.
fn start_time(pid: u32) -> Result<u64, IdentityError> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).map_err(|_| IdentityError::Gone)?;
    let after = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 1..));
    after
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .and_then(|rest| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or(IdentityError::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A witness without a process of its own: tests have threads, and cannot fork.
    fn witness() -> Witness {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 12];
            while terminal::receive(&theirs, &mut question).is_ok_and(|(length, _)| length == 12) {
                // An answer that is late, and then the right one.
                let _ = terminal::send(&theirs, &[&0u64.to_be_bytes()[..], b"-"].concat(), None);
                let seen = look(u32::from_be_bytes(question[8..].try_into().unwrap())).unwrap();
                let exe = seen.exe.as_os_str().as_bytes();
                let parts = [
                    &question[..8],
                    b"+",
                    &seen.start_time.to_be_bytes(),
                    &(exe.len() as u64).to_be_bytes(),
                    exe,
                    seen.cgroup.as_bytes(),
                ];
                terminal::send(&theirs, &parts.concat(), Some(&seen.file.into())).unwrap();
            }
        });
        Witness::There(Mutex::new(Line { socket: ours, asked: 0 }))
    }

    #[test]
    fn what_is_seen_there_is_what_is_seen_here() {
        let (pid, witness) = (std::process::id(), witness());
        for _ in 0..3 {
            let (there, here) = (witness.see(pid).unwrap(), Witness::Here.see(pid).unwrap());
            assert_eq!(there.start_time, here.start_time);
            assert_eq!((&there.exe, &there.cgroup), (&here.exe, &here.cgroup));
            assert_eq!(there.file.metadata().unwrap().ino(), here.file.metadata().unwrap().ino());
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_refusal() {
        for answer in [&b""[..], b"1234567812345678/exe", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
            assert!(seen(answer, None).is_err() && holding(answer, None).is_err(), "{answer:?}");
        }
        for (question, makes_sense) in
            [(0, false), (11, false), (12, true), (13, false), (20, true), (21, false)]
        {
            assert_eq!(asked(&vec![1; question]).is_some(), makes_sense, "{question}");
        }
    }
}
