//! The launcher's event loop while the agent runs: it forwards signals and terminal bytes, ends the run at
//! its deadline, and reports the interceptor's end. It interprets nothing that an agent sends.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anstream::eprintln;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cgroup::Cgroup;
use super::interceptor::InterceptorProcess;
use super::terminal::{StdioTerminals, TerminalRelay};
use crate::launch::init_protocol::{self, InitReport};
use crate::privsep::Channel;

/// Time between SIGTERM and SIGKILL, and the time within which a second request to end kills.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// The exit code of a run whose init process was killed.
const KILLED_EXIT_CODE: u8 = 128 + Signal::SIGKILL as u8;

/// Signals that the launcher handles instead of being ended by them.
pub(crate) fn handled_signals() -> SigSet {
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

pub(crate) enum RunOutcome {
    /// The command ended with this exit code.
    Exited(u8),
    /// The command was not started.
    NotStarted {
        /// The exit code: 125, 126 or 127.
        exit: u8,
        error: String,
    },
}

/// A running agent.
pub(crate) struct Supervised<'a> {
    pub(crate) cgroup: &'a Cgroup,
    /// The socket to its init process.
    pub(crate) agent: Channel,
    pub(crate) interceptor: &'a mut InterceptorProcess,
    pub(crate) deadline: Option<Instant>,
    /// Which of our standard descriptors are terminals.
    pub(crate) standard: StdioTerminals,
}

/// Waits until the command ends. `handled_signals()` must be blocked.
pub(crate) fn supervise(mut run: Supervised<'_>) -> io::Result<RunOutcome> {
    // A partial message must not hold up the deadline.
    run.agent.set_nonblocking(true)?;
    let signals = SignalFd::with_flags(&handled_signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut watch = Supervisor { relay: None, last_end_request: None, kill_at: None, is_ending: false };
    loop {
        let has_report = watch.poll_events(&run, &signals)?;
        if watch.relay.as_mut().is_some_and(|relay| !relay.transfer()) {
            watch.relay = None;
        }
        while let Some(signal) = signals.read_signal()? {
            watch.handle_signal(&run, signal.ssi_signo as i32)?;
        }
        if run.interceptor.poll_ended() {
            eprintln!("agentsecrets: the interceptor ended; the agent is offline\r");
        }
        watch.check_deadlines(&mut run)?;
        if has_report && let Some(ended) = watch.handle_report(&run)? {
            return Ok(ended);
        }
    }
}

struct Supervisor {
    relay: Option<TerminalRelay>,
    last_end_request: Option<Instant>,
    kill_at: Option<Instant>,
    /// The deadline passed, or the session ended.
    is_ending: bool,
}

impl Supervisor {
    /// Waits for an event. Returns whether the init process sent a report.
    fn poll_events(&self, run: &Supervised<'_>, signals: &SignalFd) -> io::Result<bool> {
        let mut events = vec![
            PollFd::new(run.agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        events.extend(self.relay.iter().flat_map(TerminalRelay::poll_fds));
        if !run.interceptor.has_ended() {
            events.push(PollFd::new(run.interceptor.control_fd(), PollFlags::POLLIN));
        }
        let next = [run.deadline, self.kill_at].into_iter().flatten().min();
        let limit = next.map_or(PollTimeout::NONE, |at| {
            // One millisecond more, so that the deadline has passed when we look.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut events, limit) {
            Err(nix::Error::EINTR) => return Ok(false),
            done => done?,
        };
        Ok(events.first().and_then(PollFd::any).unwrap_or(false))
    }

    fn handle_signal(&mut self, run: &Supervised<'_>, number: i32) -> io::Result<()> {
        let Ok(signal) = Signal::try_from(number) else { return Ok(()) };
        match signal {
            Signal::SIGWINCH => self.relay.iter().for_each(TerminalRelay::resize),
            Signal::SIGCONT => {
                if let Some(relay) = &mut self.relay {
                    relay.set_raw();
                    relay.resize();
                }
            }
            Signal::SIGCHLD | Signal::SIGTTOU => {}
            _ => {
                let is_repeated = self.last_end_request.is_some_and(|at| at.elapsed() < TERM_GRACE);
                if is_repeated && matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
                    run.cgroup.kill()?;
                } else {
                    self.last_end_request = Some(Instant::now());
                    // It may have ended at this moment.
                    let _ = init_protocol::send_signal(&run.agent, signal);
                }
            }
        }
        Ok(())
    }

    fn check_deadlines(&mut self, run: &mut Supervised<'_>) -> io::Result<()> {
        let now = Instant::now();
        let has_session_ended = run.interceptor.session_is_over() && !self.is_ending;
        if has_session_ended || run.deadline.is_some_and(|until| until <= now) {
            (run.deadline, self.is_ending) = (None, true);
            self.kill_at = Some(now + TERM_GRACE);
            run.cgroup.terminate()?;
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            run.cgroup.kill()?;
        }
        Ok(())
    }

    fn handle_report(&mut self, run: &Supervised<'_>) -> io::Result<Option<RunOutcome>> {
        let received = match init_protocol::recv(&run.agent) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            received => received?,
        };
        let outcome = match received {
            Some((InitReport::Terminal, Some(terminal))) => {
                self.relay = Some(TerminalRelay::start(run.standard, terminal)?);
                return Ok(None);
            }
            Some((InitReport::Terminal | InitReport::Started, _)) => return Ok(None),
            Some((InitReport::Failed { exit, error }, _)) => RunOutcome::NotStarted { exit, error },
            Some((InitReport::Ended(exit), _)) => RunOutcome::Exited(exit),
            None => RunOutcome::Exited(KILLED_EXIT_CODE),
        };
        // Remaining processes of the command must not write any more.
        run.cgroup.kill()?;
        if let Some(mut relay) = self.relay.take() {
            relay.drain();
        }
        Ok(Some(outcome))
    }
}
