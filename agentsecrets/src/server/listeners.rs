//! Accepts agents' connections and answers their DNS queries until they are removed or we end.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::resolver::Resolver;
use crate::dns::server;
use crate::identity::process::Identifier;
use crate::intercept::connection_limit::ConnectionLimit;
use crate::intercept::ebpf::SELF_TEST;
use crate::intercept::transparent::Transparent;
use crate::pipeline::Interceptor;
use crate::server::launch_config::SELF_TEST_RESPONSE;
use crate::types::host::Host;

/// Everything that accepting connections needs.
#[derive(Clone)]
pub(super) struct ConnectionServer {
    pub(super) intercept: Arc<Interceptor>,
    pub(super) tasks: TaskTracker,
    /// Cancelled when agents have all that they need to start.
    pub(super) agents_ready: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl ConnectionServer {
    /// Accepts connections within `limit` until we end, or until `removed`, which aborts those in flight.
    pub(super) async fn accept(
        self,
        listener: Transparent,
        identifier: Arc<Identifier>,
        limit: Arc<ConnectionLimit>,
        removed: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
                () = removed.cancelled() => return,
            };
            if accepted.destination.ip() == IpAddr::from(SELF_TEST) && identifier.is_us(&accepted.trace) {
                // Until then the probe gets no response and tries again.
                if self.agents_ready.is_cancelled() {
                    self.tasks.spawn(answer_self_test(accepted.stream));
                }
                continue;
            }
            match limit.enter() {
                Some(permit) => {
                    let (intercept, identifier) = (self.intercept.clone(), identifier.clone());
                    let removed = removed.clone();
                    self.tasks.spawn(async move {
                        let serving = intercept.connection(accepted, &identifier, permit);
                        let _ = removed.run_until_cancelled(serving).await;
                    });
                }
                None => self.intercept.reject_over_limit(accepted, identifier.clone()),
            }
        }
    }
}

/// Answers the probe of `agentsecrets health`.
async fn answer_self_test(mut stream: tokio::net::TcpStream) {
    use tokio::io::AsyncWriteExt;
    let _ = stream.write_all(SELF_TEST_RESPONSE).await;
}

/// Answers DNS queries for the names that `allows` accepts.
pub(super) fn serve_dns(
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    allows: impl Fn(&Host) -> bool + Send + Sync + 'static,
    resolver: Arc<Resolver>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let udp = udp.into_iter().map(|socket| {
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    });
    let udp = udp.collect::<io::Result<Vec<_>>>()?;
    let tcp = tcp.into_iter().map(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    let tcp = tcp.collect::<io::Result<Vec<_>>>()?;
    Ok(server::serve(udp, tcp, allows, resolver))
}
