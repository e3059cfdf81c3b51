//! Runs the command as a child: forwards signals, optionally masks its output, and returns its exit code. We
//! do not `exec` it, so the process that a script started and can inspect never has a value in its
//! environment.

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

use super::spawn_error::spawn_failure;
use crate::cli::context::Context;
use crate::launch::terminal::{StdioTerminals, TerminalRelay};
use crate::operator::invocation::Invocation;
use crate::operator::session_worker::FORWARDED_SIGNALS;
use crate::redact::mask::{Mask, MaskedValues};
use crate::sys::process::{self, ProcessUser};
use crate::types::failure::{ErrorContext, Exit, Failure};

/// After the command has ended, output of its remaining children is copied until a pause of this length.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Options for the command's output.
#[derive(Debug, clap::Args)]
pub(in crate::cli::env) struct OutputArgs {
    /// Mask the values in the output of the command
    #[arg(long)]
    mask: bool,
}

impl OutputArgs {
    /// Whether values are masked in the output.
    pub(in crate::cli::env) fn mask(&self) -> bool {
        self.mask
    }
}

/// The signals to forward; they are blocked for every thread that is started later.
pub(in crate::cli::env) struct Signals {
    signal_fd: SignalFd,
    blocked_before: SigSet,
}

impl Signals {
    /// Blocks the signals. The process must have a single thread.
    pub(in crate::cli::env) fn block() -> io::Result<Self> {
        let blocked_before = handled_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let taken = SignalFd::with_flags(&handled_signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signal_fd: taken, blocked_before })
    }

    /// Runs `command` to its end, masks the values of `masked` in its output, and returns its exit code.
    pub(in crate::cli::env) fn run(
        self,
        mut command: Command,
        masked: Option<Arc<MaskedValues>>,
        person: Option<ProcessUser>,
    ) -> Result<u8, Failure> {
        let failed = |error: io::Error| {
            Failure::new(Exit::OwnFailure, format!("cannot look after the command: {error}"))
        };
        let masked = masked.map(|values| OutputMasking { values, standard: StdioTerminals::detect() });
        let terminal = masked.as_ref().map_or(Ok(None), |masked| masked.redirect(&mut command));
        let (terminal, child_side) =
            terminal.map_err(failed)?.map(|pair| (pair.our_side, pair.child_side)).unzip();
        process::prepare_child(&mut command, self.blocked_before, child_side, person);
        let spawned = command.spawn().map_err(|error| spawn_failure(command.get_program(), &error));
        // Closes our copy of the child's side of the terminal.
        drop(command);
        let mut child = spawned?;
        let output = masked.map(|masked| masked.begin(&mut child, terminal)).transpose();
        let mut output = output.map_err(failed)?;
        let relay = output.as_mut().and_then(|output| output.relay.as_mut());
        let ended = wait(&mut child, &self.signal_fd, relay);
        if let Some(output) = output {
            output.finish();
        }
        let status = ended.map_err(failed)?;
        Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(125) as u8)
    }
}

/// The forwarded signals, plus those that only wake us.
fn handled_signals() -> SigSet {
    FORWARDED_SIGNALS.iter().copied().chain([Signal::SIGALRM, Signal::SIGCHLD]).collect()
}

fn wait(
    child: &mut Child,
    signals: &SignalFd,
    mut relay: Option<&mut TerminalRelay>,
) -> io::Result<std::process::ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32);
    let own_terminal = relay.is_some();
    loop {
        let timeout = relay.as_ref().and_then(|relay| relay.hold_timeout());
        let mut awaited = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        awaited.extend(relay.iter().flat_map(|relay| relay.poll_fds()));
        let limit = timeout.map_or(PollTimeout::NONE, limit);
        let quiet = match poll(&mut awaited, limit) {
            Err(Errno::EINTR) => continue,
            done => done? == 0,
        };
        if let Some(open) = relay.as_mut() {
            if quiet {
                open.flush_held();
            }
            if !open.transfer() {
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
                // Signals of the terminal reach the command directly.
                _ if signal.ssi_code > 0 => {}
                _ => drop(kill(pid, number)),
            }
        }
        if let Some(relay) = relay.as_mut() {
            stop_with_child(pid, relay)?;
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
    }
}

/// If the command stopped itself at its own terminal, stops this process too, so that the person's shell
/// returns; the command continues when we do.
fn stop_with_child(pid: Pid, relay: &mut TerminalRelay) -> io::Result<()> {
    let stops = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    if let Ok(WaitStatus::Stopped(..)) = waitid(Id::Pid(pid), stops) {
        relay.transfer();
        relay.restore();
        raise(Signal::SIGSTOP)?;
        relay.set_raw();
        relay.resize();
        killpg(pid, Signal::SIGCONT)?;
    }
    Ok(())
}

fn limit(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
}

/// Output masking: terminal output goes through a pseudo-terminal, other output through pipes.
struct OutputMasking {
    values: Arc<MaskedValues>,
    standard: StdioTerminals,
}

/// Both sides of a new pseudo-terminal.
struct PseudoTerminal {
    our_side: OwnedFd,
    child_side: OwnedFd,
}

/// The threads and the relay that mask output.
struct MaskedOutput {
    relay: Option<TerminalRelay>,
    pipes: Vec<thread::JoinHandle<()>>,
    /// Closed after the command has ended.
    running: OwnedFd,
}

impl OutputMasking {
    fn redirect(&self, command: &mut Command) -> io::Result<Option<PseudoTerminal>> {
        let StdioTerminals { input, output, error } = self.standard;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if !(output || error) {
            return Ok(None);
        }
        let terminal = PseudoTerminal::new()?;
        let side = || terminal.child_side.try_clone().map(Stdio::from);
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

    fn begin(self, child: &mut Child, terminal: Option<OwnedFd>) -> io::Result<MaskedOutput> {
        let relay = match terminal {
            Some(terminal) => {
                Some(TerminalRelay::start(self.standard, terminal)?.with_mask(Mask::new(self.values.clone())))
            }
            None => None,
        };
        let (ended, running) = pipe2(OFlag::O_CLOEXEC)?;
        let mut pipes = Vec::new();
        if let Some(from) = child.stdout.take() {
            let (mask, ended) = (Mask::new(self.values.clone()), ended.try_clone()?);
            pipes.push(thread::spawn(move || copy_masked(from, io::stdout(), mask, &ended)));
        }
        if let Some(from) = child.stderr.take() {
            let mask = Mask::new(self.values);
            pipes.push(thread::spawn(move || copy_masked(from, io::stderr(), mask, &ended)));
        }
        Ok(MaskedOutput { relay, pipes, running })
    }
}

impl PseudoTerminal {
    fn new() -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let our_side = posix_openpt(flags)?;
        grantpt(&our_side)?;
        unlockpt(&our_side)?;
        let child_side = open(Path::new(&ptsname_r(&our_side)?), flags, Mode::empty())?;
        Ok(Self { our_side: our_side.into(), child_side })
    }
}

impl MaskedOutput {
    /// Copies the remaining output.
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

/// Copies the output of one pipe until it ends or, after the command's end, pauses. If the reader is gone it
/// stops too, so the command gets a broken pipe as it would without us.
fn copy_masked(mut from: impl Read + AsFd, mut to: impl Write, mut mask: Mask, ended: &OwnedFd) {
    let mut buffer = vec![0; 64 << 10];
    let mut running = true;
    loop {
        let timeout = mask.timeout().or((!running).then_some(OUTPUT_DRAIN_TIMEOUT));
        let mut awaited = vec![PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if running {
            awaited.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
        }
        let ready = match poll(&mut awaited, timeout.map_or(PollTimeout::NONE, limit)) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(ready) => ready,
        };
        let [has_output, has_ended] = [0, 1].map(|at| awaited.get(at).and_then(PollFd::any) == Some(true));
        running &= !has_ended;
        let clean = match (ready, has_output) {
            (0, _) if !running && mask.timeout().is_none() => break,
            (0, _) => mask.pause(),
            (_, false) => continue,
            (_, true) => match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => mask.push(buffer.get(..length).unwrap_or_default().to_vec()),
            },
        };
        if to.write_all(&clean).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
    let _ = to.write_all(&mask.finish()).and_then(|()| to.flush());
}

/// Makes `command` run as the caller of the daemon, if there is one.
pub(in crate::cli::env) fn run_as_caller(
    command: &mut Command,
    asked: Option<&Context>,
) -> Result<Option<ProcessUser>, Failure> {
    let invocation = asked.and_then(|context| context.invocation.as_ref());
    invocation.map(|invocation| run_as_person(command, invocation)).transpose()
}

/// Makes `command` run as the person of `invocation`, with that person's environment.
fn run_as_person(command: &mut Command, invocation: &Invocation) -> Result<ProcessUser, Failure> {
    let sound = |text: &OsString| !text.as_encoded_bytes().contains(&0);
    let variables = invocation.environment.iter().filter(|(name, value)| {
        sound(name) && sound(value) && !name.is_empty() && !name.as_encoded_bytes().contains(&b'=')
    });
    command.env_clear().envs(variables.map(|(name, value)| (name, value)));
    let person = crate::launch::user_or_placeholder(invocation.uid, invocation.gid);
    let groups = std::ffi::CString::new(person.name.clone())
        .map_err(std::io::Error::from)
        .and_then(|name| Ok(nix::unistd::getgrouplist(&name, person.gid)?));
    let groups = groups.context_with_exit(Exit::OwnFailure, "cannot read the person's groups")?;
    Ok(ProcessUser { uid: person.uid, gid: person.gid, groups })
}
