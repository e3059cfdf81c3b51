//! Terminals: the `ioctl`s that safe libraries leave to their callers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The size of a terminal, in characters and pixels.
#[derive(Clone, Copy)]
pub struct Size(libc::winsize);

/// The size of `terminal`.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills a structure that lives across the call.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if done == 0 { Ok(Size(size)) } else { Err(io::Error::last_os_error()) }
}

/// Gives `terminal` the size `size`; its foreground processes hear of it.
pub fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    // SAFETY: the kernel reads a structure that lives across the call.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size.0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `terminal` the controlling terminal of the calling session leader.
pub fn control(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: takes no pointer; 0 asks not to steal the terminal from another session.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
