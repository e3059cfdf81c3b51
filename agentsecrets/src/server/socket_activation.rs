//! systemd socket activation and readiness notification. It refuses a passed socket that is not bound to loopback.

use std::io;
use std::net::TcpListener;

#[cfg(target_os = "linux")]
use crate::sys;
#[cfg(target_os = "linux")]
use crate::types::failure::Exit;
use crate::types::failure::Failure;

/// Only systemd passes sockets.
#[cfg(not(target_os = "linux"))]
pub(super) fn passed_listener() -> Result<Option<TcpListener>, Failure> {
    Ok(None)
}

/// There is no systemd to notify.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ready() -> io::Result<()> {
    Ok(())
}

/// The listening socket that systemd passed to this process, if any.
#[cfg(target_os = "linux")]
pub(super) fn passed_listener() -> Result<Option<TcpListener>, Failure> {
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

/// Notifies systemd that we serve.
#[cfg(target_os = "linux")]
pub(crate) fn ready() -> io::Result<()> {
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
}
