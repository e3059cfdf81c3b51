//! The way to a server whose connection nobody opens: to the very address that the agent dialled, if that is
//! one of the name's own, and if it may be dialled at all.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Upstream;
use super::connector::{self, Wire};
use super::failure;
use crate::base::refusal::{Refusal, Slug};
use crate::policy::connection::Tunnel;

/// How long the other end may be silent before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

impl Upstream {
    /// Connects to `destination`, which must be an address of the tunnel's host.
    pub async fn open_tunnel(
        &self,
        tunnel: &Tunnel,
        destination: SocketAddr,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Refusal> {
        let connecting = self.connect_tunnel(tunnel, destination);
        let patience = self.patience().connect;
        let late = |_| failure::no_connection(tunnel.host(), patience);
        tokio::time::timeout(patience, connecting)
            .await
            .map_err(late)?
            .map_err(|refusal| refusal.by_rule(&**tunnel.rule()))
    }

    async fn connect_tunnel(&self, tunnel: &Tunnel, destination: SocketAddr) -> Result<Wire, Refusal> {
        let host = tunnel.host();
        let ip = destination.ip().to_canonical();
        let known = self.resolver().has_address(host, ip).await;
        if !known.map_err(|error| failure::unresolved(host, &error))? {
            let message = format!("the address that was dialled is none of '{host}', for which it was");
            return Err(Refusal::new(Slug::TargetMismatch, host, message));
        }
        self.check(ip, tunnel.private(), tunnel.port())
            .map_err(|refused| failure::guarded(host, std::iter::once(refused)))?;
        let unreachable = |error| failure::unreachable(host, &error);
        let stream = connector::dial(&[SocketAddr::new(ip, tunnel.port())]).await.map_err(unreachable)?;
        // A failure costs nothing but that a vanished server is noticed later.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        Ok(Wire::Plain(stream))
    }
}
