//! Descriptor passing over Unix sockets, and the process at their other end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// The maximum of descriptors in one message. With space for all of them none is cut off, which would leave
/// some open and unseen.
const MAX_DESCRIPTORS: usize = 253;

/// The result of one receive.
pub struct Received {
    /// The number of bytes; 0: the other side closed the connection.
    pub length: usize,
    /// The descriptors that came with them.
    pub descriptors: Vec<OwnedFd>,
    /// Whether descriptors are missing, since this process may open no more.
    pub is_truncated: bool,
}

/// Sends as much of `bytes` as the socket accepts, with `descriptors`. Returns the number of bytes.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

/// Receives the available bytes, with the descriptors that came with them.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    let is_truncated = message.flags.contains(ReturnFlags::CTRUNC);
    Ok(Received { length: message.bytes, descriptors, is_truncated })
}

/// Registers a non-blocking descriptor with the runtime.
pub fn async_fd(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it stays the same descriptor until it is dropped, and is closed after it was taken off.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// A descriptor of the process that made the connection, whoever gets its id later.
///
/// # Errors
/// When that process has ended, or the kernel is older than 6.5 (`ENOPROTOOPT`).
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut descriptor: RawFd = -1;
    let mut length = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `descriptor`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if done == 0 && descriptor >= 0 {
        Ok(super::process::own(descriptor))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Another descriptor for what the descriptor `number` of this process leads to, with its rights: opening
/// its name in `/dev/fd` would ask for them anew.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; a number that is not open is an error.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy >= 0 { Ok(super::process::own(copy)) } else { Err(io::Error::last_os_error()) }
}
