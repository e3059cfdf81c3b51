//! Checks that agents beside this process are intercepted and served. The kernel programs treat one
//! unroutable address as an agent's, so that a probe from our own cgroup takes an agent's path.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::intercept::ebpf::SELF_TEST;
use crate::server::launch_config::SELF_TEST_RESPONSE;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The port of `discard`: harmless even if the address were reachable.
const DISCARD_PORT: u16 = 9;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    /// The egress hooks let a datagram leave.
    #[error("no hook is in force here: a datagram to {0} was not refused")]
    NotIntercepted(SocketAddr),
    /// The interceptor does not answer.
    #[error("agents are intercepted, but not served: {0}")]
    NotServed(io::Error),
}

/// Sends a datagram that must be refused, and opens a connection that must reach our interceptor.
pub(crate) fn check() -> Result<(), HealthError> {
    let nowhere = SocketAddr::new(IpAddr::from(SELF_TEST), DISCARD_PORT);
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", nowhere));
    if sent.is_ok() || sent.is_err_and(|error| error.kind() != io::ErrorKind::PermissionDenied) {
        return Err(HealthError::NotIntercepted(nowhere));
    }
    let mut bytes = [0; SELF_TEST_RESPONSE.len()];
    let response = TcpStream::connect_timeout(&nowhere, ANSWER_TIMEOUT).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.read_exact(&mut bytes)
    });
    response.map_err(HealthError::NotServed)?;
    if bytes == SELF_TEST_RESPONSE {
        Ok(())
    } else {
        Err(HealthError::NotServed(io::ErrorKind::InvalidData.into()))
    }
}
