//! Whether agents beside us are held: we ask from our own cgroup what becomes of a connection of theirs. The
//! kernel's programs treat one address, which leads nowhere, as if an agent asked for it.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::intercept::ebpf::SELF_TEST;
use crate::server::launch_config::HELD;

/// How long the interceptor may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The port of `discard`: even if the address led somewhere, nothing would come of it.
const DISCARD: u16 = 9;

/// Why agents are not held, or not served.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// What they send is not stopped.
    #[error("no hook is in force here: a datagram to {0} was not refused")]
    NotHeld(SocketAddr),
    /// Nobody answers where they are led to.
    #[error("agents are held, but nobody serves them: {0}")]
    NotServed(io::Error),
}

/// Sends a datagram that must be refused, and opens a connection that must come to our interceptor.
pub fn check() -> Result<(), Unhealthy> {
    let nowhere = SocketAddr::new(IpAddr::from(SELF_TEST), DISCARD);
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", nowhere));
    if sent.is_ok() || sent.is_err_and(|error| error.kind() != io::ErrorKind::PermissionDenied) {
        return Err(Unhealthy::NotHeld(nowhere));
    }
    let mut answer = [0; HELD.len()];
    let heard = TcpStream::connect_timeout(&nowhere, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut answer)
    });
    heard.map_err(Unhealthy::NotServed)?;
    if answer == HELD { Ok(()) } else { Err(Unhealthy::NotServed(io::ErrorKind::InvalidData.into())) }
}
