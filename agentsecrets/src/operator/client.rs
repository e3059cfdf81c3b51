//! The client: it forwards a command line to the daemon. The daemon believes nothing of it, so that nothing
//! here is a protection; the client only must not be deceived by a socket that is not the daemon's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
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

use crate::operator::daemon::FRONTEND_SOCKET;
use crate::operator::polkit::TerminalAgent;
use crate::operator::session_worker::FORWARDED_SIGNALS;
use crate::privsep::Channel;
use crate::privsep::request::{
    CLIENT_LIMITS, DescriptorRole, PROTOCOL_VERSION, Reply, Request, is_display_variable,
};
use crate::sys;
use crate::types::failure::{Exit, Failure};

/// A command line to forward.
#[derive(Debug, Default)]
pub(crate) struct ForwardedCommand {
    /// The arguments, without the program's name.
    pub(crate) arguments: Vec<OsString>,
    /// Files that arguments name; the client opens them with the caller's own rights.
    pub(crate) files: Vec<PathBuf>,
    /// Paths in arguments with their absolute form: the daemon has another working folder and search path.
    pub(crate) located_paths: Vec<(PathBuf, PathBuf)>,
    pub(crate) project_file: Option<PathBuf>,
    /// Whether it starts a command, in the caller's environment and folder.
    pub(crate) starts_command: bool,
    /// Whether polkit may ask a person who has no desktop.
    pub(crate) needs_polkit_agent: bool,
}

/// Forwards a command line and returns its exit code.
pub(crate) fn forward(command: ForwardedCommand) -> Result<u8, Failure> {
    // A program that traces this process could act in its name.
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("the daemon: {error}"));
    sys::protect_memory().map_err(failed)?;
    // Before signals are blocked: Ctrl-C must reach it too.
    let terminal_agent = if command.needs_polkit_agent { TerminalAgent::start() } else { None };
    let forwarded: SigSet = FORWARDED_SIGNALS.iter().copied().collect();
    forwarded.thread_block().map_err(|error| failed(error.into()))?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&forwarded, flags).map_err(|error| failed(error.into()))?;
    let daemon = connect()?;
    let (request, opened) = build_request(command)?;
    let body = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    let stdio =
        [0, 1, 2].map(stdio_descriptor).into_iter().collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let descriptors: Vec<BorrowedFd<'_>> = stdio.iter().chain(&opened).map(AsFd::as_fd).collect();
    // A daemon that rejects the request early still sends the reason.
    let sent = daemon.send(&body, &descriptors);
    drop((stdio, opened));
    let reply = forward_signals(&daemon, &signals).map_err(failed)?;
    drop(terminal_agent);
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

/// Connects to the daemon, if the socket is root's: another listener would learn what the person types next.
fn connect() -> Result<Channel, Failure> {
    let unreachable = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("the daemon does not answer at {FRONTEND_SOCKET}: {reason}"))
            .hint("sudo systemctl start agentsecrets.socket")
    };
    let daemon = UnixStream::connect(FRONTEND_SOCKET).map_err(|error| unreachable(&error))?;
    let owner = getsockopt(&daemon, sockopt::PeerCredentials).map_err(|error| unreachable(&error))?;
    if owner.uid() != 0 {
        return Err(unreachable(&format!("it is not root's but of the user {}", owner.uid())));
    }
    Ok(Channel::new(daemon, CLIENT_LIMITS))
}

/// The request and its descriptors.
fn build_request(command: ForwardedCommand) -> Result<(Request, Vec<OwnedFd>), Failure> {
    let mut request =
        Request { version: PROTOCOL_VERSION, arguments: command.arguments, ..Request::default() };
    for (named, path) in command.located_paths {
        if let Some((argument, from)) = find_argument(&request.arguments, &named)
            && let Some(argument) = request.arguments.get_mut(argument)
        {
            let mut bytes = std::mem::take(argument).into_vec();
            bytes.truncate(from);
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            *argument = OsString::from_vec(bytes);
        }
    }
    let mut opened: Vec<OwnedFd> = Vec::new();
    let mut add = |role: DescriptorRole, file: File| {
        request.descriptor_roles.push(role);
        opened.push(file.into());
    };
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(".");
    folder.into_iter().for_each(|folder| add(DescriptorRole::Folder, folder));
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty");
    terminal.into_iter().for_each(|terminal| add(DescriptorRole::Terminal, terminal));
    let cannot = |path: &Path, error: io::Error| {
        Failure::new(Exit::Failure, format!("{} cannot be read: {error}", path.display()))
    };
    if let Some(path) = command.project_file {
        let file = File::open(&path).map_err(|error| cannot(&path, error))?;
        add(DescriptorRole::ProjectFile(path), file);
    }
    for path in command.files {
        let Some((argument, from)) = find_argument(&request.arguments, &path) else { continue };
        let file = File::open(&path).map_err(|error| cannot(&path, error))?;
        request.descriptor_roles.push(DescriptorRole::File(argument, from));
        opened.push(file.into());
    }
    let display = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        is_display_variable(&name, &value).then_some((name, value))
    });
    request.display = display.collect();
    if command.starts_command {
        let mask = umask(Mode::empty());
        umask(mask);
        request.umask = mask.bits();
        request.environment = std::env::vars_os().collect();
    }
    if nix::unistd::getuid().is_root() {
        request.acting_for = crate::launch::sudo_caller().map(|user| user.uid.as_raw());
    }
    Ok((request, opened))
}

/// The argument that names `path`, and the offset of the path in it.
fn find_argument(arguments: &[OsString], path: &Path) -> Option<(usize, usize)> {
    arguments.iter().enumerate().rev().find_map(|(at, argument)| {
        let start = argument.as_bytes().strip_suffix(path.as_os_str().as_bytes())?;
        (start.is_empty() || start.ends_with(b"=")).then_some((at, start.len()))
    })
}

/// A duplicate of the standard descriptor `number`; `/dev/null` if it is closed.
fn stdio_descriptor(number: i32) -> io::Result<OwnedFd> {
    match crate::sys::fd_passing::duplicate(number) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
        }
        stdio => stdio,
    }
}

/// Forwards signals until the reply arrives; `None` if the daemon ended first.
fn forward_signals(daemon: &Channel, signals: &SignalFd) -> io::Result<Option<Reply>> {
    loop {
        let mut events =
            [PollFd::new(daemon.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let [has_reply, _] = events.map(|fd| fd.any().unwrap_or(true));
        while let Some(signal) = signals.read_signal()? {
            // A daemon that is gone is noticed by the next receive.
            let _ = daemon.send(&[signal.ssi_signo as u8], &[]);
        }
        if has_reply {
            return Ok(daemon.recv_json()?.map(|(reply, _)| reply));
        }
    }
}
