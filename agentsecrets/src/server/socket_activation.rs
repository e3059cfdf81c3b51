//! What a service manager does for a daemon: it may have opened the socket already, and it wants to hear when
//! we serve. A socket that others than this machine's programs reach is refused, whoever opened it.

use std::io;
use std::net::TcpListener;

#[cfg(target_os = "linux")]
use crate::sys;
#[cfg(target_os = "linux")]
use crate::types::failure::Exit;
use crate::types::failure::Failure;

/// No socket is passed here.
#[cfg(not(target_os = "linux"))]
pub(super) fn passed() -> Result<Option<TcpListener>, Failure> {
    Ok(None)
}

/// Nobody is told.
#[cfg(not(target_os = "linux"))]
pub fn ready() -> io::Result<()> {
    Ok(())
}

/// The listening socket that systemd passed to this process, if it did.
#[cfg(target_os = "linux")]
pub(super) fn passed() -> Result<Option<TcpListener>, Failure> {
    let refused = |why: &str| {
        Failure::new(Exit::Failure, format!("the socket that systemd passed cannot be used: {why}"))
            .hint("a socket unit for the proxy has one ListenStream=127.0.0.1:8765")
    };
    let unusable = |error: io::Error| refused(&error.to_string());
    let mut descriptors = sd_notify::listen_fds().map_err(unusable)?;
    let Some(descriptor) = descriptors.next() else { return Ok(None) };
    if descriptors.next().is_some() {
        return Err(refused("there are several"));
    }
    let socket = socket2::Socket::from(sys::inherited(descriptor).map_err(unusable)?);
    let listens = socket.is_listener().unwrap_or(false);
    if !listens || socket.r#type().ok() != Some(socket2::Type::STREAM) {
        return Err(refused("it does not listen"));
    }
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().map_err(|_| refused("it is not one of TCP"))?;
    if !address.ip().is_loopback() {
        return Err(refused(&format!("{address} can be reached from elsewhere")));
    }
    Ok(Some(listener))
}

/// Says that we serve, to whoever asked to be told.
#[cfg(target_os = "linux")]
pub fn ready() -> io::Result<()> {
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
}
