//! The command while it runs: signals meant for it are passed on, its output is masked where that is asked
//! for, and its end is ours. It is a child of ours and not what we become, so that the process which a
//! script started and can look at never holds a value in its environment.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};

use super::super::{not_started, ours};
use crate::cli::{Context, Failure};
use crate::launch::terminal::{Relay, Standard};
use crate::privsep::invocation::Ticket;
use crate::privsep::session_worker::PASSED_ON;
use crate::redact::mask::{Mask, Values};
use crate::sys::process::{self, Person};

/// How long output may come after the command's end, from what it left running: it ends at the first such
/// silence.
const LATE: Duration = Duration::from_millis(500);

/// What `env` can do to the command's output.
#[derive(Debug, clap::Args)]
pub(in crate::cli::env) struct Flags {
    /// Take the values out of what the command prints
    #[arg(long)]
    mask: bool,
}

impl Flags {
    /// Whether values are taken out of it.
    pub(in crate::cli::env) fn mask(&self) -> bool {
        self.mask
    }
}

/// The signals that are passed on, blocked for every thread that is started from here on.
pub(in crate::cli::env) struct Signals {
    taken: SignalFd,
    blocked_before: SigSet,
}

impl Signals {
    /// Blocks them. Call it with a single thread.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        let blocked_before = caught().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let taken = SignalFd::with_flags(&caught(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { taken, blocked_before })
    }

    /// Runs `command` to its end, with the values of `masked` taken out of its output, and gives its exit
    /// code.
    pub(in crate::cli::env) fn run(
        self,
        mut command: Command,
        masked: Option<Arc<Values>>,
        person: Option<Person>,
    ) -> Result<u8, Failure> {
        let failed = |error: io::Error| ours("cannot look after the command", error);
        let masked = masked.map(|values| Masked { values, standard: Standard::find() });
        let terminal = masked.as_ref().map_or(Ok(None), |masked| masked.redirect(&mut command));
        let (terminal, theirs) = terminal.map_err(failed)?.map(|pair| (pair.ours, pair.theirs)).unzip();
        process::bring_up(&mut command, self.blocked_before, theirs, person);
        let spawned = command.spawn().map_err(|error| not_started(command.get_program(), &error));
        // Its side of the terminal is the command's alone.
        drop(command);
        let mut child = spawned?;
        let output = masked.map(|masked| masked.begin(&mut child, terminal)).transpose();
        let mut output = output.map_err(failed)?;
        let relay = output.as_mut().and_then(|output| output.relay.as_mut());
        let ended = wait(&mut child, &self.taken, relay);
        if let Some(output) = output {
            output.finish();
        }
        let status = ended.map_err(failed)?;
        Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(125) as u8)
    }
}

/// The signals that are passed on, and what else wakes us.
fn caught() -> SigSet {
    PASSED_ON.iter().copied().chain([Signal::SIGALRM, Signal::SIGCHLD]).collect()
}

fn wait(
    child: &mut Child,
    signals: &SignalFd,
    mut relay: Option<&mut Relay>,
) -> io::Result<std::process::ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32);
    let own_terminal = relay.is_some();
    loop {
        let patience = relay.as_ref().and_then(|relay| relay.patience());
        let mut awaited = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        awaited.extend(relay.iter().flat_map(|relay| relay.awaited()));
        let limit = patience.map_or(PollTimeout::NONE, limit);
        let quiet = match poll(&mut awaited, limit) {
            Err(Errno::EINTR) => continue,
            done => done? == 0,
        };
        if let Some(open) = relay.as_mut() {
            if quiet {
                open.pause();
            }
            if !open.carry() {
                open.drain();
                relay = None;
            }
        }
        while let Some(signal) = signals.read_signal()? {
            let Ok(number) = Signal::try_from(signal.ssi_signo as i32) else { continue };
            match number {
                Signal::SIGCHLD => {}
                Signal::SIGWINCH if own_terminal => relay.iter().for_each(|relay| relay.resize()),
                _ if own_terminal => drop(killpg(pid, number)),
                // What the terminal sends reaches the command by itself.
                _ if signal.ssi_code > 0 => {}
                _ => drop(kill(pid, number)),
            }
        }
        if let Some(relay) = relay.as_mut() {
            follow_a_stop(pid, relay)?;
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
    }
}

/// A command that stopped itself at its own terminal stops us too, so that the person's shell is back; it goes
/// on when we do.
fn follow_a_stop(pid: Pid, relay: &mut Relay) -> io::Result<()> {
    let stops = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    if let Ok(WaitStatus::Stopped(..)) = waitid(Id::Pid(pid), stops) {
        relay.carry();
        relay.give_back();
        raise(Signal::SIGSTOP)?;
        relay.take_over();
        relay.resize();
        killpg(pid, Signal::SIGCONT)?;
    }
    Ok(())
}

fn limit(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
}

/// How the output is masked: what went to a terminal goes through one of the command's own, the rest
/// through pipes.
struct Masked {
    values: Arc<Values>,
    standard: Standard,
}

/// Both sides of a new terminal.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

/// Output that is being masked.
struct Output {
    relay: Option<Relay>,
    pipes: Vec<thread::JoinHandle<()>>,
    /// Closed when the command has ended.
    running: OwnedFd,
}

impl Masked {
    fn redirect(&self, command: &mut Command) -> io::Result<Option<Terminal>> {
        let Standard { input, output, error } = self.standard;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if !(output || error) {
            return Ok(None);
        }
        let terminal = Terminal::new()?;
        let side = || terminal.theirs.try_clone().map(Stdio::from);
        if input {
            command.stdin(side()?);
        }
        if output {
            command.stdout(side()?);
        }
        if error {
            command.stderr(side()?);
        }
        Ok(Some(terminal))
    }

    fn begin(self, child: &mut Child, terminal: Option<OwnedFd>) -> io::Result<Output> {
        let relay = match terminal {
            Some(terminal) => {
                Some(Relay::start(self.standard, terminal)?.masking(Mask::new(self.values.clone())))
            }
            None => None,
        };
        let (ended, running) = pipe2(OFlag::O_CLOEXEC)?;
        let mut pipes = Vec::new();
        if let Some(from) = child.stdout.take() {
            let (mask, ended) = (Mask::new(self.values.clone()), ended.try_clone()?);
            pipes.push(thread::spawn(move || pass_on(from, io::stdout(), mask, &ended)));
        }
        if let Some(from) = child.stderr.take() {
            let mask = Mask::new(self.values);
            pipes.push(thread::spawn(move || pass_on(from, io::stderr(), mask, &ended)));
        }
        Ok(Output { relay, pipes, running })
    }
}

impl Terminal {
    fn new() -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let ours = posix_openpt(flags)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let theirs = open(Path::new(&ptsname_r(&ours)?), flags, Mode::empty())?;
        Ok(Self { ours: ours.into(), theirs })
    }
}

impl Output {
    /// Shows what is still on its way.
    fn finish(self) {
        drop(self.running);
        if let Some(mut relay) = self.relay {
            relay.drain();
        }
        for pipe in self.pipes {
            let _ = pipe.join();
        }
    }
}

/// Passes the output of one pipe on, until it ends or, after the command's end, falls silent. A reader who
/// is gone ends it too, and the command meets a broken pipe as it would without us.
fn pass_on(mut from: impl Read + AsFd, mut to: impl Write, mut mask: Mask, ended: &OwnedFd) {
    let mut buffer = vec![0; 64 << 10];
    let mut running = true;
    loop {
        let patience = mask.patience().or((!running).then_some(LATE));
        let mut awaited = vec![PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if running {
            awaited.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
        }
        let ready = match poll(&mut awaited, patience.map_or(PollTimeout::NONE, limit)) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(ready) => ready,
        };
        let [has_output, has_ended] = [0, 1].map(|at| awaited.get(at).and_then(PollFd::any) == Some(true));
        running &= !has_ended;
        let clean = match (ready, has_output) {
            (0, _) if !running && mask.patience().is_none() => break,
            (0, _) => mask.pause(),
            (_, false) => continue,
            (_, true) => match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => mask.pass(buffer.get(..length).unwrap_or_default().to_vec()),
            },
        };
        if to.write_all(&clean).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
    let _ = to.write_all(&mask.finish()).and_then(|()| to.flush());
}

/// Has `command` start as the person who asked at the door, if one did.
pub(in crate::cli::env) fn as_who_asked(
    command: &mut Command,
    asked: Option<&Context>,
) -> Result<Option<Person>, Failure> {
    let ticket = asked.and_then(|context| context.ticket.as_ref());
    ticket.map(|ticket| as_the_person(command, ticket)).transpose()
}

/// Has `command` start as the person who asked at the door, with that person's own environment.
fn as_the_person(command: &mut Command, ticket: &Ticket) -> Result<Person, Failure> {
    let sound = |text: &OsString| !text.as_encoded_bytes().contains(&0);
    let variables = ticket.environment.iter().filter(|(name, value)| {
        sound(name) && sound(value) && !name.is_empty() && !name.as_encoded_bytes().contains(&b'=')
    });
    command.env_clear().envs(variables.map(|(name, value)| (name, value)));
    let person = crate::launch::person(ticket.uid, ticket.gid);
    let groups = std::ffi::CString::new(person.name.clone())
        .map_err(std::io::Error::from)
        .and_then(|name| Ok(nix::unistd::getgrouplist(&name, person.gid)?));
    let groups = groups.map_err(|error| ours("cannot tell the person's groups", error))?;
    Ok(Person { uid: person.uid, gid: person.gid, groups })
}
