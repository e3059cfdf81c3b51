//! Listening where nobody else can: Windows lets a second program take over a port whose first does not forbid it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::windows::io::AsRawSocket;

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{SO_EXCLUSIVEADDRUSE, SOL_SOCKET, setsockopt};

/// The accept queue's length.
const WAITING: i32 = 128;

/// Listens at `address`, which nobody else can then.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    let alone = 1_i32;
    // SAFETY: the socket is open, and the system reads a number of this length.
    let code = unsafe {
        let length = size_of_val(&alone) as i32;
        let value = (&raw const alone).cast();
        setsockopt(socket.as_raw_socket() as usize, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, value, length)
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&address.into()).map_err(|error| match error.kind() {
        // Said of a port that another program has for itself alone, or the system for what it may need.
        io::ErrorKind::PermissionDenied => io::ErrorKind::AddrInUse.into(),
        _ => error,
    })?;
    socket.listen(WAITING)?;
    Ok(socket.into())
}
