//! The session worker of one request: it identifies the client, has the command authorised, starts it,
//! forwards signals to it, and returns its exit code.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, pipe2, setsid};

use super::peer::Peer;
use crate::identity::IdentityError;
use crate::operator::authorizer::{Authorization, AuthorizationRequest, CommandPolicy, RunAs, authorize};
use crate::operator::invocation::Invocation;
use crate::operator::system_config::SystemConfig;
use crate::operator::user_home;
use crate::privsep::Channel;
use crate::privsep::invocation::{INVOCATION_VARIABLE, variable_value};
use crate::privsep::request::{
    CLIENT_LIMITS, ClientRequest, DescriptorRole, FORWARDED_LIMITS, REQUEST_TIMEOUT, Reply,
};
use crate::server::sandbox::privileges;
use crate::sys::{self, process};
use crate::types::failure::{Exit, Failure};

/// Time between SIGHUP and SIGKILL for a command whose client is gone.
const HANGUP_GRACE: Duration = Duration::from_secs(10);

/// Signals that a client may send to its command.
pub(crate) const FORWARDED_SIGNALS: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Runs the worker, a process of its own; `frontend` is the connection with the request.
pub(crate) fn run(frontend: UnixStream, system: &SystemConfig, policy: &CommandPolicy) -> u8 {
    // Open until this process ends, which is what the frontend waits for.
    let frontend = Channel::new(frontend, FORWARDED_LIMITS);
    let Ok((client, request)) = recv_request(&frontend) else { return 1 };
    let reply = match serve_request(&client, &request, system, policy) {
        Ok(exit) => Reply { exit, error: None, hint: None },
        Err(failure) => Reply {
            exit: failure.exit() as u8,
            error: Some(failure.message().to_owned()),
            hint: failure.advice().map(str::to_owned),
        },
    };
    // While signals are forwarded the connection does not block.
    let _ = client.set_nonblocking(false);
    reply.send(&client);
    0
}

/// Receives the client's connection and its request.
fn recv_request(frontend: &Channel) -> io::Result<(Channel, ClientRequest)> {
    process::close_on_exec_from(3)?;
    process::default_signals(FORWARDED_SIGNALS)?;
    frontend.set_receive_timeout(Some(REQUEST_TIMEOUT))?;
    let mut message = frontend.recv()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if message.descriptors.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let client = UnixStream::from(message.descriptors.remove(0));
    Ok((Channel::new(client, CLIENT_LIMITS), ClientRequest::from_message(message)?))
}

fn serve_request(
    client: &Channel,
    request: &ClientRequest,
    system: &SystemConfig,
    policy: &CommandPolicy,
) -> Result<u8, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("the daemon: {error}"));
    let peer = Peer::identify(client).map_err(|error| match error {
        IdentityError::Io(error) => failed(&error),
        unproven => Failure::new(Exit::Denied, unproven),
    })?;
    if peer.is_agent {
        return Err(Failure::new(Exit::Denied, "the daemon is not for agents")
            .hint("a person runs this, in a terminal outside `agentsecrets run`"));
    }
    let person = match request.request.acting_for {
        Some(person) if peer.uid.is_root() => Uid::from_raw(person),
        Some(_) => return Err(Failure::new(Exit::Denied, "only root acts for somebody else")),
        None => peer.uid,
    };
    user_home::create(system, person).map_err(|error| failed(&error))?;
    let authorization = match authorize_in_child(client, request, &peer, person, system, policy)
        .map_err(|error| failed(&error))?
    {
        Ok(authorization) => authorization,
        Err(exit) => return Ok(exit),
    };
    let run_as = authorization.run_as;
    let command = ChildCommand { request, peer: &peer, person, system, authorization };
    let child = process::fork(|| command.exec_or_report()).map_err(|error| failed(&error))?;
    // From here on at most the right to signal the command is needed.
    let keep: &[Capability] = if run_as == RunAs::Launcher { &[Capability::CAP_KILL] } else { &[] };
    privileges::become_user(system.uid.as_raw(), system.gid.as_raw(), keep)
        .map_err(|error| failed(&error))?;
    forward_signals(client, child).map_err(|error| failed(&error))
}

/// Runs the authorizer in a child. It returns two bytes, or the exit code of a rejection that it has
/// reported.
fn authorize_in_child(
    client: &Channel,
    request: &ClientRequest,
    peer: &Peer,
    person: Uid,
    system: &SystemConfig,
    policy: &CommandPolicy,
) -> io::Result<Result<Authorization, u8>> {
    let (result, result_writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let authorizer = process::fork(|| {
        let terminal = request.find_descriptor(|role| matches!(role, DescriptorRole::Terminal).then_some(()));
        let [stdin, stdout, stderr] = &request.stdio;
        let to_authorize = AuthorizationRequest {
            config: system,
            peer,
            user: person,
            arguments: &request.request.arguments,
            terminals: terminal
                .into_iter()
                .map(|((), terminal)| terminal.as_fd())
                .chain([stdin, stderr, stdout].map(AsFd::as_fd))
                .collect(),
        };
        let prepared =
            become_authorizer(request, person, system).map_err(|error| Failure::new(Exit::Failure, error));
        match prepared.and_then(|()| authorize(&to_authorize, policy)) {
            Ok(Authorization { run_as, by_trusted_program }) => u8::from(
                nix::unistd::write(&result_writer, &[run_as as u8, u8::from(by_trusted_program)]).is_err(),
            ),
            Err(failure) => {
                failure.report();
                failure.exit() as u8
            }
        }
    })?;
    drop(result_writer);
    let exit = forward_signals(client, authorizer)?;
    let mut bytes = [0; 2];
    let run_as = match (exit, nix::unistd::read(&result, &mut bytes)?, bytes[0]) {
        (0, 2, 0) => RunAs::DaemonUser,
        (0, 2, 1) => RunAs::Launcher,
        (0, 2, 2) => RunAs::CommandStarter,
        // The command line only printed its own help.
        (exit, ..) => return Ok(Err(exit)),
    };
    Ok(Ok(Authorization { run_as, by_trusted_program: bytes[1] == 1 }))
}

/// Makes the calling process the authorizer: the daemon's user, with the client's descriptors.
fn become_authorizer(request: &ClientRequest, person: Uid, system: &SystemConfig) -> io::Result<()> {
    take_stdio(request)?;
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    std::env::set_current_dir("/")?;
    user_home::isolate(person)?;
    sys::conceal()?;
    privileges::drop_privileges(system.uid.as_raw(), system.gid.as_raw())?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

fn take_stdio(request: &ClientRequest) -> io::Result<()> {
    let [stdin, stdout, stderr] = &request.stdio;
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

/// A command that is about to be started.
struct ChildCommand<'a> {
    request: &'a ClientRequest,
    peer: &'a Peer,
    person: Uid,
    system: &'a SystemConfig,
    authorization: Authorization,
}

impl ChildCommand<'_> {
    /// In the child: executes our own program with the person's arguments.
    fn exec_or_report(&self) -> u8 {
        let error = self.exec().err().unwrap_or_else(|| io::Error::other("nothing was executed"));
        Failure::new(Exit::Failure, format!("the daemon cannot start the command: {error}")).report();
        Exit::Failure as u8
    }

    fn exec(&self) -> io::Result<()> {
        let Self { request, person, system, authorization, .. } = self;
        let Authorization { run_as, by_trusted_program } = authorization;
        take_stdio(request)?;
        // Without a controlling terminal it can type into none, and none can end it.
        setsid()?;
        let mut arguments = request.request.arguments.clone();
        let mut project_file = None;
        for (role, descriptor) in request.request.descriptor_roles.iter().zip(&request.descriptors) {
            match role {
                DescriptorRole::Folder if *run_as != RunAs::DaemonUser => fchdir(descriptor)?,
                DescriptorRole::Folder | DescriptorRole::Terminal => {}
                DescriptorRole::File(argument, from) => {
                    let name = format!("/dev/fd/{}", clear_close_on_exec(descriptor.as_fd())?);
                    let argument = arguments.get_mut(*argument).ok_or(io::ErrorKind::InvalidData)?;
                    let mut bytes = std::mem::take(argument).into_vec();
                    bytes.truncate(*from);
                    bytes.extend_from_slice(name.as_bytes());
                    *argument = OsString::from_vec(bytes);
                }
                DescriptorRole::ProjectFile(path) => {
                    project_file = Some((path.clone(), clear_close_on_exec(descriptor.as_fd())?));
                }
            }
        }
        let gid = nix::unistd::User::from_uid(*person).ok().flatten().map(|user| user.gid);
        let invocation = Invocation {
            uid: person.as_raw(),
            gid: gid
                .unwrap_or(if self.peer.uid == *person { self.peer.gid } else { Gid::from_raw(65534) })
                .as_raw(),
            by_root: self.peer.uid.is_root(),
            by_trusted_program: *by_trusted_program,
            process: self.peer.process.clone(),
            parent: self.peer.parent.clone(),
            environment: if *run_as == RunAs::DaemonUser {
                Vec::new()
            } else {
                request.request.environment.clone()
            },
            project_file,
        };
        let invocation: OwnedFd = invocation.to_memfd()?;
        clear_close_on_exec(invocation.as_fd())?;
        let (uid, gid) = (system.uid.as_raw(), system.gid.as_raw());
        // The caller's own umask, but nobody else may write to what is created.
        let mask = if *run_as == RunAs::DaemonUser { 0o077 } else { request.request.umask & 0o777 | 0o022 };
        umask(Mode::from_bits_truncate(mask));
        match run_as {
            RunAs::DaemonUser => {
                std::env::set_current_dir("/")?;
                user_home::isolate(*person)?;
                privileges::drop_privileges(uid, gid)?;
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            RunAs::CommandStarter => {
                user_home::isolate(*person)?;
                privileges::become_user_who_starts_commands(uid, gid)?;
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            // It ends its command when asked to.
            RunAs::Launcher => prctl::set_pdeathsig(Signal::SIGTERM)?,
        }
        let home = user_home::path(*person);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("agentsecrets").args(arguments).env_clear();
        command.envs(request.request.display.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &home).env("AGENTSECRETS_HOME", &home);
        command.env("AGENTSECRETS_VAULT_KEY_FILE", user_home::key_path(*person));
        // Root may set it for the service: the daemon's environment is not the caller's.
        let roots = std::env::var_os("AGENTSECRETS_UPSTREAM_CA");
        command.envs(roots.map(|roots| ("AGENTSECRETS_UPSTREAM_CA", roots)));
        command.env(INVOCATION_VARIABLE, variable_value(&invocation));
        Err(command.exec())
    }
}

/// Lets the next executed program inherit `descriptor`, and returns its number.
fn clear_close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<i32> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_raw_fd())
}

/// Waits until `child` ends, and forwards the client's signals meanwhile: a message of one byte is one signal.
fn forward_signals(client: &Channel, child: Pid) -> io::Result<u8> {
    let pidfd = process::pidfd(child)?;
    client.set_nonblocking(true)?;
    let (mut is_gone, mut kill_at) = (false, None);
    loop {
        let mut events = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if !is_gone {
            events.push(PollFd::new(client.as_fd(), PollFlags::POLLIN));
        }
        let left = kill_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
        match poll(&mut events, timeout) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let [has_ended, has_message] = [0, 1].map(|at| events.get(at).and_then(PollFd::any) == Some(true));
        if has_ended {
            return Ok(match waitpid(child, None)? {
                WaitStatus::Exited(_, code) => code as u8,
                WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
                _ => Exit::Failure as u8,
            });
        }
        if has_message {
            match client.recv() {
                Ok(Some(message)) => {
                    let signal =
                        message.body.first().and_then(|byte| Signal::try_from(i32::from(*byte)).ok());
                    if let Some(signal) = signal.filter(|signal| FORWARDED_SIGNALS.contains(signal)) {
                        kill(child, signal)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The client is gone, so that the command has no purpose.
                Ok(None) | Err(_) => {
                    (is_gone, kill_at) = (true, Instant::now().checked_add(HANGUP_GRACE));
                    kill(child, Signal::SIGHUP)?;
                }
            }
        }
        if kill_at.is_some_and(|at| at <= Instant::now()) {
            kill_at = None;
            kill(child, Signal::SIGKILL)?;
        }
    }
}
