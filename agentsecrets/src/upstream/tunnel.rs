//! The way to a server whose connection nobody opens: to the very address that the agent dialled, if that is
//! one of the name's own, and if it may be dialled at all.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Upstream;
use super::failure;
use crate::intercept::Destination;
use crate::policy::connection::Tunnel;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::upstream::connect::{self, Wire};

/// How long the other end may be silent before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

impl Upstream {
    /// Connects to `destination`, which must be an address of the tunnel's host, or that host itself.
    pub async fn open_tunnel(
        &self,
        tunnel: &Tunnel,
        destination: &Destination,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Rejection> {
        let connecting = self.connect_tunnel(tunnel, destination);
        let patience = self.patience().connect;
        let late = |_| failure::no_connection(tunnel.host(), patience);
        tokio::time::timeout(patience, connecting)
            .await
            .map_err(late)?
            .map_err(|refusal| refusal.by_rule(&**tunnel.rule()))
    }

    async fn connect_tunnel(&self, tunnel: &Tunnel, destination: &Destination) -> Result<Wire, Rejection> {
        let host = tunnel.host();
        let unresolved = |error| failure::unresolved(host, &error);
        let ips = match destination {
            Destination::Named(name, _) if name == host => {
                self.resolver().lookup(host).await.map_err(unresolved)?
            }
            Destination::Named(..) => return Err(elsewhere(host, "the name that was asked for")),
            Destination::Address(address) => {
                let ip = address.ip().to_canonical();
                if !self.resolver().has_address(host, ip).await.map_err(unresolved)? {
                    return Err(elsewhere(host, "the address that was dialled"));
                }
                vec![ip]
            }
        };
        let judged = ips.iter().map(|ip| (*ip, self.check(*ip, tunnel.private(), tunnel.port())));
        let (good, bad): (Vec<_>, Vec<_>) = judged.partition(|(_, verdict)| verdict.is_ok());
        if good.is_empty() {
            return Err(failure::guarded(host, bad.into_iter().filter_map(|(_, bad)| bad.err())));
        }
        let good: Vec<_> = good.iter().map(|(ip, _)| SocketAddr::new(*ip, tunnel.port())).collect();
        let unreachable = |error| failure::unreachable(host, &error);
        let stream = connect::dial(&good).await.map_err(unreachable)?;
        // A failure costs nothing but that a vanished server is noticed later.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        Ok(Wire::Plain(stream))
    }
}

fn elsewhere(host: &Host, what: &str) -> Rejection {
    let message = format!("{what} is none of '{host}', for which it was");
    Rejection::new(ErrorCode::TargetMismatch, host, message)
}
