//! Our side of the door: what a person typed, passed on. Nothing here is believed by the daemon, so nothing
//! here protects anything; it only must not be fooled by a door that is not the daemon's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};

use super::SOCKET;
use super::request::{Reply, Request, Role, VERSION, is_plain};
use crate::privsep::frame;
use crate::privsep::polkit_agent::TextAgent;
use crate::privsep::session_worker::PASSED_ON;
use crate::sys;
use crate::types::failure::{Exit, Failure};

/// The longest reply, in bytes.
const LONGEST_REPLY: u64 = 64 << 10;

/// What is passed on.
#[derive(Debug, Default)]
pub struct Passed {
    /// The arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// Files that arguments name, to be opened with the caller's own rights.
    pub files: Vec<PathBuf>,
    /// What arguments name and is looked at where it lies, with where that is: the caller's folder, and the folders
    /// where a shell would look for it, are not the daemon's.
    pub places: Vec<(PathBuf, PathBuf)>,
    /// The project file that applies.
    pub project_file: Option<PathBuf>,
    /// Whether a command will be started, in the caller's environment and folder.
    pub starts_a_command: bool,
    /// Whether polkit will ask the person, who may have no desktop.
    pub asked_by_polkit: bool,
}

/// Passes a command line on, and returns the exit code of what came of it.
pub fn pass(passed: Passed) -> Result<u8, Failure> {
    // A program that traces us could speak for us: at least not for want of care.
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("the door: {error}"));
    sys::protect_memory().map_err(failed)?;
    // Before signals are caught: Ctrl-C is for it, too.
    let text_agent = if passed.asked_by_polkit { TextAgent::start() } else { None };
    let caught: SigSet = PASSED_ON.iter().copied().collect();
    caught.thread_block().map_err(|error| failed(error.into()))?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&caught, flags).map_err(|error| failed(error.into()))?;
    let door = connect()?;
    let (request, carried) = prepare(passed)?;
    let body = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    let standard = [0, 1, 2].map(standard).into_iter().collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let descriptors: Vec<BorrowedFd<'_>> = standard.iter().chain(&carried).map(AsFd::as_fd).collect();
    // One that refuses before it has read everything still says why.
    let sent = frame::send(&door, &body, &descriptors);
    drop((standard, carried));
    let reply = wait(&door, &signals).map_err(failed)?;
    drop(text_agent);
    let Some(reply) = reply else {
        sent.map_err(failed)?;
        return Err(Failure::new(Exit::Unreachable, "the daemon ended before the command did")
            .hint("systemctl status agentsecrets"));
    };
    if let Some(error) = reply.error {
        let failure = Failure::new(Exit::Failure, error);
        let failure = reply.hint.into_iter().fold(failure, Failure::hint);
        failure.report();
    }
    Ok(reply.exit)
}

/// The door, if it is root's: whoever else listened there would be told what the person types next.
fn connect() -> Result<UnixStream, Failure> {
    let unreachable = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("the daemon does not answer at {SOCKET}: {what}"))
            .hint("sudo systemctl start agentsecrets.socket")
    };
    let door = UnixStream::connect(SOCKET).map_err(|error| unreachable(&error))?;
    let owner = getsockopt(&door, sockopt::PeerCredentials).map_err(|error| unreachable(&error))?;
    if owner.uid() != 0 {
        return Err(unreachable(&format!("it is not root's but of the user {}", owner.uid())));
    }
    Ok(door)
}

/// The request, and what it carries.
fn prepare(passed: Passed) -> Result<(Request, Vec<OwnedFd>), Failure> {
    let mut request = Request { version: VERSION, arguments: passed.arguments, ..Request::default() };
    for (named, place) in passed.places {
        if let Some((argument, from)) = argument(&request.arguments, &named)
            && let Some(word) = request.arguments.get_mut(argument)
        {
            let mut bytes = std::mem::take(word).into_vec();
            bytes.truncate(from);
            bytes.extend_from_slice(place.as_os_str().as_bytes());
            *word = OsString::from_vec(bytes);
        }
    }
    let mut carried: Vec<OwnedFd> = Vec::new();
    let mut carry = |role: Role, file: File| {
        request.carried.push(role);
        carried.push(file.into());
    };
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(".");
    folder.into_iter().for_each(|folder| carry(Role::Folder, folder));
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty");
    terminal.into_iter().for_each(|terminal| carry(Role::Terminal, terminal));
    let cannot = |path: &Path, error: io::Error| {
        Failure::new(Exit::Failure, format!("{} cannot be read: {error}", path.display()))
    };
    if let Some(path) = passed.project_file {
        let file = File::open(&path).map_err(|error| cannot(&path, error))?;
        carry(Role::ProjectFile(path), file);
    }
    for path in passed.files {
        let Some((argument, from)) = argument(&request.arguments, &path) else { continue };
        let file = File::open(&path).map_err(|error| cannot(&path, error))?;
        request.carried.push(Role::File(argument, from));
        carried.push(file.into());
    }
    let display = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        is_plain(&name, &value).then_some((name, value))
    });
    request.display = display.collect();
    if passed.starts_a_command {
        let mask = umask(Mode::empty());
        umask(mask);
        request.umask = mask.bits();
        request.environment = std::env::vars_os().collect();
    }
    if nix::unistd::getuid().is_root() {
        request.acting_for = crate::launch::who_called_sudo().map(|user| user.uid.as_raw());
    }
    Ok((request, carried))
}

/// The argument that names `path`, and from which of its bytes on.
fn argument(arguments: &[OsString], path: &Path) -> Option<(usize, usize)> {
    arguments.iter().enumerate().rev().find_map(|(at, word)| {
        let start = word.as_bytes().strip_suffix(path.as_os_str().as_bytes())?;
        (start.is_empty() || start.ends_with(b"=")).then_some((at, start.len()))
    })
}

/// The standard descriptor `number`; where it is closed, one that leads nowhere.
fn standard(number: i32) -> io::Result<OwnedFd> {
    match crate::sys::fd_passing::duplicate(number) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
        }
        standard => standard,
    }
}

/// Passes signals on until there is a reply.
fn wait(mut door: &UnixStream, signals: &SignalFd) -> io::Result<Option<Reply>> {
    loop {
        let mut awaited =
            [PollFd::new(door.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut awaited, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let [answered, _] = awaited.map(|fd| fd.any().unwrap_or(true));
        while let Some(signal) = signals.read_signal()? {
            // A daemon that is gone is seen when it is read.
            let _ = door.write_all(&[signal.ssi_signo as u8]);
        }
        if answered {
            let mut line = String::new();
            return match BufReader::new(door.take(LONGEST_REPLY)).read_line(&mut line) {
                Ok(0) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                Err(error) => Err(error),
                Ok(_) => Ok(Some(serde_json::from_str(&line)?)),
            };
        }
    }
}
