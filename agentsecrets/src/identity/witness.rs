//! The witness: a small process that looks at other processes for the interceptor. Looking at a program
//! of another user takes a privilege, and a process that Landlock confines may look at none at all; so
//! that the one which reads hostile bytes has neither the privilege nor its reach, this one has it,
//! reads no byte of an agent, and answers one question: who is the process with this id?

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
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
            Self::There(line) => line.lock().unwrap_or_else(PoisonError::into_inner).ask(pid),
        }
    }
}

impl Line {
    fn ask(&mut self, pid: u32) -> Result<Seen, IdentityError> {
        self.asked += 1;
        terminal::send(&self.socket, &[&self.asked.to_be_bytes()[..], &pid.to_be_bytes()].concat(), None)?;
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
                return understood(answer, file);
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
    let mut question = [0; 12];
    loop {
        if terminal::receive(socket, &mut question)?.0 != question.len() {
            return Ok(());
        }
        let (number, pid) = question.split_at(8);
        let pid = u32::from_be_bytes(pid.try_into().map_err(io::Error::other)?);
        let (mut answer, file) = (number.to_vec(), look(pid));
        match &file {
            Ok(seen) => {
                answer.push(b'+');
                answer.extend(seen.start_time.to_be_bytes());
                answer.extend((seen.exe.as_os_str().len() as u64).to_be_bytes());
                answer.extend(seen.exe.as_os_str().as_bytes());
                answer.extend(seen.cgroup.as_bytes());
            }
            Err(IdentityError::Io(error)) => {
                answer.push(b'!');
                answer.extend(error.to_string().bytes());
            }
            Err(_) => answer.push(b'-'),
        }
        terminal::send(socket, &answer, file.ok().map(|seen| OwnedFd::from(seen.file)).as_ref())?;
    }
}

/// What an answer says.
fn understood(answer: &[u8], file: Option<OwnedFd>) -> Result<Seen, IdentityError> {
    let (kind, rest) = answer.split_first().ok_or_else(unclear)?;
    match kind {
        b'-' => return Err(IdentityError::Gone),
        b'!' => return Err(io::Error::other(String::from_utf8_lossy(rest).into_owned()).into()),
        _ => {}
    }
    let (start_time, rest) = rest.split_first_chunk().ok_or_else(unclear)?;
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
    use std::os::unix::fs::MetadataExt;

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
        for answer in [&b""[..], b"+", b"+1234567812345678/exe", b"?", b"+\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
            assert!(understood(answer, None).is_err(), "{answer:?}");
        }
        assert!(matches!(understood(b"-", None), Err(IdentityError::Gone)));
    }
}
