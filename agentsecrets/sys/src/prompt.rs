//! A line that a person types and nobody sees: a value, a passphrase. Where the process has no terminal of
//! its own, it is asked for at the one that it was given.

use std::io;

use zeroize::Zeroizing;

/// Asks at the terminal of this process, else at the one that is its standard input.
pub fn hidden(prompt: &str) -> io::Result<Zeroizing<String>> {
    #[cfg(target_os = "linux")]
    if let Err(error) = std::fs::File::open("/dev/tty") {
        use std::io::IsTerminal;
        use std::os::fd::AsFd;
        let stdin = io::stdin();
        return if stdin.is_terminal() { given::hidden(stdin.as_fd(), prompt, None) } else { Err(error) };
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}

#[cfg(target_os = "linux")]
pub use given::hidden as hidden_at;

#[cfg(target_os = "linux")]
mod given {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::{Duration, Instant};

    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
    use nix::unistd::{read, write};
    use zeroize::Zeroizing;

    /// The longest line, in bytes: what the kernel keeps of one.
    const MAX_LINE_LEN: usize = 4096;

    /// Asks at `terminal`, which need not be the one that controls this process, for at most `patience`. What
    /// was typed before is thrown away; the terminal gets its settings back whatever happens.
    pub fn hidden(
        terminal: BorrowedFd<'_>,
        prompt: &str,
        timeout: Option<Duration>,
    ) -> io::Result<Zeroizing<String>> {
        let caught: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        let before = caught.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let asked = ask(terminal, prompt, timeout, &caught);
        // A signal that came meanwhile does what it always does.
        before.thread_set_mask()?;
        asked
    }

    fn ask(
        terminal: BorrowedFd<'_>,
        prompt: &str,
        timeout: Option<Duration>,
        caught: &SigSet,
    ) -> io::Result<Zeroizing<String>> {
        let signals = SignalFd::with_flags(caught, SfdFlags::SFD_CLOEXEC)?;
        let settings = tcgetattr(terminal)?;
        let mut quiet = settings.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        quiet.local_flags.insert(LocalFlags::ICANON | LocalFlags::ECHONL | LocalFlags::ISIG);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        let _restored = Restored { terminal, settings };
        write(terminal, prompt.as_bytes())?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
        while line.last() != Some(&b'\n') {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::ZERO));
            let mut awaited =
                [PollFd::new(terminal, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut awaited, left) {
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
            }
            if awaited[1].any().unwrap_or(true) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut room = Zeroizing::new([0; MAX_LINE_LEN]);
            match read(terminal, &mut *room)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => line.extend_from_slice(room.get(..length).unwrap_or_default()),
            }
            if line.len() > MAX_LINE_LEN {
                return Err(io::Error::other("the line is too long"));
            }
        }
        line.pop();
        let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("the line is not UTF-8"))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    struct Restored<'a> {
        terminal: BorrowedFd<'a>,
        settings: Termios,
    }

    impl Drop for Restored<'_> {
        fn drop(&mut self) {
            let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.settings);
        }
    }
}
