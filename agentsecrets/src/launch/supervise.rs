//! The launcher while the agent runs: it passes signals and the terminal's bytes on, ends the run at its
//! time, says when the interceptor is gone, and looks at nothing that an agent sends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anstream::eprintln;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cgroup::Cgroup;
use super::interceptor::Interceptor;
use super::terminal::{Relay, Standard};
use crate::launch::init_protocol::{self, Report};

/// What the agent's processes have between SIGTERM and SIGKILL, and within which a second request to end
/// is meant as such.
const GRACE: Duration = Duration::from_secs(5);

/// The exit code for a run whose first process was killed.
const KILLED: u8 = 128 + Signal::SIGKILL as u8;

/// The signals that the launcher reads instead of being ended by them.
pub fn caught() -> SigSet {
    [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
        Signal::SIGCHLD,
        Signal::SIGCONT,
        Signal::SIGTTOU,
    ]
    .into_iter()
    .collect()
}

/// How the command ended.
pub enum Ended {
    /// With this exit code.
    With(u8),
    /// It never started.
    NotStarted {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        /// What happened.
        what: String,
    },
}

/// A running agent, as the launcher knows it.
pub struct Run<'a> {
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// The socket to its first process.
    pub agent: OwnedFd,
    /// Its interceptor.
    pub interceptor: &'a mut Interceptor,
    /// When it must end.
    pub until: Option<Instant>,
    /// Which of our standard descriptors are terminals.
    pub standard: Standard,
}

/// Waits until the command ends. `caught()` must be blocked.
pub fn supervise(mut run: Run<'_>) -> io::Result<Ended> {
    let signals = SignalFd::with_flags(&caught(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut watch = Watch { relay: None, asked: None, kill_at: None, is_over: false };
    loop {
        let reported = watch.wait(&run, &signals)?;
        if watch.relay.as_mut().is_some_and(|relay| !relay.carry()) {
            watch.relay = None;
        }
        while let Some(signal) = signals.read_signal()? {
            watch.signal(&run, signal.ssi_signo as i32)?;
        }
        if run.interceptor.has_just_ended() {
            eprintln!("agentsecrets: the interceptor ended; the agent is offline\r");
        }
        watch.clock(&mut run)?;
        if reported && let Some(ended) = watch.report(&run)? {
            return Ok(ended);
        }
    }
}

struct Watch {
    relay: Option<Relay>,
    /// When the run was last asked to end.
    asked: Option<Instant>,
    kill_at: Option<Instant>,
    /// Its time has come, or its session was ended.
    is_over: bool,
}

impl Watch {
    /// Waits until something happened. Whether the agent's first process has something to say.
    fn wait(&self, run: &Run<'_>, signals: &SignalFd) -> io::Result<bool> {
        let mut awaited = vec![
            PollFd::new(run.agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        awaited.extend(self.relay.iter().flat_map(Relay::awaited));
        if !run.interceptor.is_gone() {
            awaited.push(PollFd::new(run.interceptor.end(), PollFlags::POLLIN));
        }
        let next = [run.until, self.kill_at].into_iter().flatten().min();
        let limit = next.map_or(PollTimeout::NONE, |at| {
            // A millisecond more, so that the clock has passed the time when we look.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut awaited, limit) {
            Err(nix::Error::EINTR) => return Ok(false),
            done => done?,
        };
        Ok(awaited.first().and_then(PollFd::any).unwrap_or(false))
    }

    fn signal(&mut self, run: &Run<'_>, number: i32) -> io::Result<()> {
        let Ok(signal) = Signal::try_from(number) else { return Ok(()) };
        match signal {
            Signal::SIGWINCH => self.relay.iter().for_each(Relay::resize),
            Signal::SIGCONT => {
                if let Some(relay) = &mut self.relay {
                    relay.take_over();
                    relay.resize();
                }
            }
            Signal::SIGCHLD | Signal::SIGTTOU => {}
            _ => {
                let again = self.asked.is_some_and(|at| at.elapsed() < GRACE);
                if again && matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
                    run.cgroup.kill()?;
                } else {
                    self.asked = Some(Instant::now());
                    // It may have ended at this moment.
                    let _ = init_protocol::pass_on(&run.agent, signal);
                }
            }
        }
        Ok(())
    }

    fn clock(&mut self, run: &mut Run<'_>) -> io::Result<()> {
        let now = Instant::now();
        let is_told = run.interceptor.session_is_over() && !self.is_over;
        if is_told || run.until.is_some_and(|until| until <= now) {
            (run.until, self.is_over) = (None, true);
            self.kill_at = Some(now + GRACE);
            run.cgroup.terminate()?;
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            run.cgroup.kill()?;
        }
        Ok(())
    }

    fn report(&mut self, run: &Run<'_>) -> io::Result<Option<Ended>> {
        let ended = match init_protocol::receive(&run.agent)? {
            Some((Report::Terminal, Some(terminal))) => {
                self.relay = Some(Relay::start(run.standard, terminal)?);
                return Ok(None);
            }
            Some((Report::Terminal | Report::Started, _)) => return Ok(None),
            Some((Report::Failed { exit, what }, _)) => Ended::NotStarted { exit, what },
            Some((Report::Ended(exit), _)) => Ended::With(exit),
            None => Ended::With(KILLED),
        };
        // Whatever the command left running must not write on.
        run.cgroup.kill()?;
        if let Some(mut relay) = self.relay.take() {
            relay.drain();
        }
        Ok(Some(ended))
    }
}
