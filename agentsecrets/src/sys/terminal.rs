//! Terminals and the passing of descriptors: the `ioctl`s and control messages that safe libraries
//! leave to their callers.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

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

/// Sends one message on a packet socket, with a descriptor if one is given.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<i32> = descriptor.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

/// Receives one message of at most `buffer.len()` bytes from a packet socket, and the descriptor that
/// came with it. No bytes: the other side is gone.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // Own them all, so that none is left open unseen.
            received = descriptors.into_iter().map(super::process::own).reduce(|first, _| first);
        }
    }
    Ok((message.bytes, received))
}
