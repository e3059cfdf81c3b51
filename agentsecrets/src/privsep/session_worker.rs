//! The usher of one request: it asks the kernel who is there, has the judge's word, starts the verb, and
//! goes with it until it ends: signals go in, the exit code comes out.

use std::ffi::OsString;
use std::io::{self, Read};
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
use super::request::{Asked, Reply, Role};
use crate::identity::IdentityError;
use crate::privsep::authorizer::{Leave, Question, Start, Verbs, judge};
use crate::privsep::frame;
use crate::privsep::invocation::{Ticket, VARIABLE};
use crate::privsep::system_config::System;
use crate::privsep::user_home;
use crate::server::sandbox::privileges;
use crate::sys::{self, process};
use crate::types::failure::{Exit, Failure};

/// What a verb has between SIGHUP and SIGKILL when its client is gone.
const GRACE: Duration = Duration::from_secs(10);

/// Signals that a client may pass on.
pub const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// The life of an usher, a process of its own, at whose `porter` end a request waits.
pub fn live(porter: UnixStream, system: &System, verbs: &Verbs) -> u8 {
    let Ok((client, asked)) = receive(&porter) else { return 1 };
    let reply = match usher(&client, &asked, system, verbs) {
        Ok(exit) => Reply { exit, error: None, hint: None },
        Err(failure) => Reply {
            exit: failure.exit() as u8,
            error: Some(failure.what().to_owned()),
            hint: failure.advice().map(str::to_owned),
        },
    };
    reply.tell(&client);
    0
}

/// The client's connection, and what came over it.
fn receive(porter: &UnixStream) -> io::Result<(UnixStream, Asked)> {
    process::close_on_exec_from(3)?;
    process::default_signals(PASSED_ON)?;
    let mut parcel = frame::receive(porter)?;
    if parcel.descriptors.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let client = UnixStream::from(parcel.descriptors.remove(0));
    Ok((client, Asked::read(parcel)?))
}

fn usher(client: &UnixStream, asked: &Asked, system: &System, verbs: &Verbs) -> Result<u8, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("the door: {error}"));
    let peer = Peer::identify(client).map_err(|error| match error {
        IdentityError::Io(error) => failed(&error),
        unproven => Failure::new(Exit::Denied, unproven),
    })?;
    if peer.is_agent {
        return Err(Failure::new(Exit::Denied, "the person's door is not for agents")
            .hint("a person runs this, in a terminal outside `agentsecrets run`"));
    }
    let person = match asked.request.acting_for {
        Some(person) if peer.uid.is_root() => Uid::from_raw(person),
        Some(_) => return Err(Failure::new(Exit::Denied, "only root acts for somebody else")),
        None => peer.uid,
    };
    user_home::make(system, person).map_err(|error| failed(&error))?;
    let leave = match hear(client, asked, &peer, person, system, verbs).map_err(|error| failed(&error))? {
        Ok(leave) => leave,
        Err(exit) => return Ok(exit),
    };
    let start = leave.start;
    let verb = Verb { asked, peer: &peer, person, system, leave };
    let child = process::fork(|| verb.become_it()).map_err(|error| failed(&error))?;
    // What is passed on from here on takes at most the right to signal the verb.
    let kept: &[Capability] = if start == Start::Launcher { &[Capability::CAP_KILL] } else { &[] };
    privileges::become_user(system.uid.as_raw(), system.gid.as_raw(), kept)
        .map_err(|error| failed(&error))?;
    accompany(client, child).map_err(|error| failed(&error))
}

/// Has the judge's word, in two bytes: how to start the verb, or the exit code of a refusal that has been told.
fn hear(
    client: &UnixStream,
    asked: &Asked,
    peer: &Peer,
    person: Uid,
    system: &System,
    verbs: &Verbs,
) -> io::Result<Result<Leave, u8>> {
    let (word, say) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let judging = process::fork(|| {
        let terminal = asked.find(|role| matches!(role, Role::Terminal).then_some(()));
        let [stdin, stdout, stderr] = &asked.standard;
        let question = Question {
            system,
            peer,
            person,
            arguments: &asked.request.arguments,
            terminals: terminal
                .into_iter()
                .map(|((), terminal)| terminal.as_fd())
                .chain([stdin, stderr, stdout].map(AsFd::as_fd))
                .collect(),
        };
        let judged = prepare(asked, person, system).map_err(|error| Failure::new(Exit::Failure, error));
        match judged.and_then(|()| judge(&question, verbs)) {
            Ok(Leave { start, by_trust }) => {
                u8::from(nix::unistd::write(&say, &[start as u8, u8::from(by_trust)]).is_err())
            }
            Err(failure) => {
                failure.report();
                failure.exit() as u8
            }
        }
    })?;
    drop(say);
    let exit = accompany(client, judging)?;
    let mut said = [0; 2];
    let start = match (exit, nix::unistd::read(&word, &mut said)?, said[0]) {
        (0, 2, 0) => Start::Daemon,
        (0, 2, 1) => Start::Launcher,
        (0, 2, 2) => Start::Giver,
        // It understood the command line as one that only explains itself.
        (exit, ..) => return Ok(Err(exit)),
    };
    Ok(Ok(Leave { start, by_trust: said[1] == 1 }))
}

/// Makes the calling process one that may judge: the daemon's user, with the client's descriptors.
fn prepare(asked: &Asked, person: Uid, system: &System) -> io::Result<()> {
    take_standard(asked)?;
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    std::env::set_current_dir("/")?;
    user_home::alone(person)?;
    sys::conceal()?;
    privileges::drop_privileges(system.uid.as_raw(), system.gid.as_raw())?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

fn take_standard(asked: &Asked) -> io::Result<()> {
    let [stdin, stdout, stderr] = &asked.standard;
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

/// A verb that is about to be started.
struct Verb<'a> {
    asked: &'a Asked,
    peer: &'a Peer,
    person: Uid,
    system: &'a System,
    leave: Leave,
}

impl Verb<'_> {
    /// The child's side: becomes our own program with the person's arguments.
    fn become_it(&self) -> u8 {
        let error = self.execute().err().unwrap_or_else(|| io::Error::other("nothing was executed"));
        Failure::new(Exit::Failure, format!("the door cannot start the command: {error}")).report();
        Exit::Failure as u8
    }

    fn execute(&self) -> io::Result<()> {
        let Self { asked, person, system, leave: Leave { start, by_trust }, .. } = self;
        take_standard(asked)?;
        // No terminal controls it, so that it can type into none, and none can end it.
        setsid()?;
        let mut arguments = asked.request.arguments.clone();
        let mut project_file = None;
        for (role, descriptor) in asked.request.carried.iter().zip(&asked.carried) {
            match role {
                Role::Folder if *start != Start::Daemon => fchdir(descriptor)?,
                Role::Folder | Role::Terminal => {}
                Role::File(argument, from) => {
                    let name = format!("/dev/fd/{}", inheritable(descriptor.as_fd())?);
                    let argument = arguments.get_mut(*argument).ok_or(io::ErrorKind::InvalidData)?;
                    let mut bytes = std::mem::take(argument).into_vec();
                    bytes.truncate(*from);
                    bytes.extend_from_slice(name.as_bytes());
                    *argument = OsString::from_vec(bytes);
                }
                Role::ProjectFile(path) => {
                    project_file = Some((path.clone(), inheritable(descriptor.as_fd())?));
                }
            }
        }
        let gid = nix::unistd::User::from_uid(*person).ok().flatten().map(|user| user.gid);
        let ticket = Ticket {
            uid: person.as_raw(),
            gid: gid
                .unwrap_or(if self.peer.uid == *person { self.peer.gid } else { Gid::from_raw(65534) })
                .as_raw(),
            by_root: self.peer.uid.is_root(),
            by_trust: *by_trust,
            process: self.peer.process.clone(),
            started_by: self.peer.started_by.clone(),
            environment: if *start == Start::Daemon { Vec::new() } else { asked.request.environment.clone() },
            project_file,
        };
        let ticket: OwnedFd = ticket.write()?;
        inheritable(ticket.as_fd())?;
        let (uid, gid) = (system.uid.as_raw(), system.gid.as_raw());
        // The caller's own mask, but that nobody else may ever write to what is made on the way.
        let mask = if *start == Start::Daemon { 0o077 } else { asked.request.umask & 0o777 | 0o022 };
        umask(Mode::from_bits_truncate(mask));
        match start {
            Start::Daemon => {
                std::env::set_current_dir("/")?;
                user_home::alone(*person)?;
                privileges::drop_privileges(uid, gid)?;
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            Start::Giver => {
                user_home::alone(*person)?;
                privileges::become_giver(uid, gid)?;
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            // It ends what it started when it is asked to.
            Start::Launcher => prctl::set_pdeathsig(Signal::SIGTERM)?,
        }
        let home = user_home::of(*person);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("agentsecrets").args(arguments).env_clear();
        command.envs(asked.request.display.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &home).env("AGENTSECRETS_HOME", &home);
        command.env("AGENTSECRETS_VAULT_KEY_FILE", user_home::key(*person));
        // Root's word, where the service has one: the daemon's own environment is not the caller's.
        let roots = std::env::var_os("AGENTSECRETS_UPSTREAM_CA");
        command.envs(roots.map(|roots| ("AGENTSECRETS_UPSTREAM_CA", roots)));
        command.env(VARIABLE, Ticket::number(&ticket));
        Err(command.exec())
    }
}

/// Lets the program that is started next keep `descriptor`, and gives its number.
fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<i32> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_raw_fd())
}

/// Waits until `child` ends, and passes on meanwhile what the client sends: one byte, one signal.
fn accompany(mut client: &UnixStream, child: Pid) -> io::Result<u8> {
    let pidfd = process::pidfd(child)?;
    let (mut gone, mut kill_at) = (false, None);
    loop {
        let mut awaited = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if !gone {
            awaited.push(PollFd::new(client.as_fd(), PollFlags::POLLIN));
        }
        let left = kill_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
        let limit = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
        match poll(&mut awaited, limit) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let [ended, heard] = [0, 1].map(|at| awaited.get(at).and_then(PollFd::any) == Some(true));
        if ended {
            return Ok(match waitpid(child, None)? {
                WaitStatus::Exited(_, code) => code as u8,
                WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
                _ => Exit::Failure as u8,
            });
        }
        if heard {
            let mut byte = [0];
            match client.read(&mut byte) {
                Ok(1..) => {
                    let signal = Signal::try_from(i32::from(byte[0]));
                    if let Some(signal) = signal.ok().filter(|signal| PASSED_ON.contains(signal)) {
                        kill(child, signal)?;
                    }
                }
                // Nobody is there any more for whom it would go on.
                Ok(0) | Err(_) => {
                    (gone, kill_at) = (true, Instant::now().checked_add(GRACE));
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
