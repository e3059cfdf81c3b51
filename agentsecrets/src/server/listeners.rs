//! Where agents come in: connections are taken and names are answered, for as long as somebody is to be served.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::resolver::Resolver;
use crate::dns::server;
use crate::identity::process::Identifier;
use crate::intercept::connection_limit::Room;
use crate::intercept::ebpf::SELF_TEST;
use crate::intercept::transparent::Transparent;
use crate::pipeline::Intercept;
use crate::server::launch_config::HELD;
use crate::types::host::Host;

/// What taking connections takes.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) intercept: Arc<Intercept>,
    pub(super) room: Arc<Room>,
    pub(super) tasks: TaskTracker,
    /// Cancelled when agents have all that they need to start.
    pub(super) introduced: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Doors {
    /// Takes as many connections at once as `share` allows, until we end or until `over`, which breaks off those
    /// that are under way.
    pub(super) async fn accept(
        self,
        listener: Transparent,
        identifier: Arc<Identifier>,
        share: Arc<Semaphore>,
        over: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
                () = over.cancelled() => return,
            };
            if accepted.destination.ip() == IpAddr::from(SELF_TEST) && identifier.is_us(&accepted.trace) {
                // Until then whoever asks hears nothing, and asks again.
                if self.introduced.is_cancelled() {
                    self.tasks.spawn(answer_self_test(accepted.stream));
                }
                continue;
            }
            let one = share.clone().try_acquire_owned().ok();
            match one.and_then(|one| Some((one, self.room.enter()?))) {
                Some((one, place)) => {
                    let (intercept, identifier) = (self.intercept.clone(), identifier.clone());
                    let over = over.clone();
                    self.tasks.spawn(async move {
                        let serving = intercept.connection(accepted, &identifier, place);
                        let _ = over.run_until_cancelled(serving).await;
                        drop(one);
                    });
                }
                None => self.intercept.no_room(accepted, identifier.clone()),
            }
        }
    }
}

/// What `agentsecrets health` waits to hear.
async fn answer_self_test(mut stream: tokio::net::TcpStream) {
    use tokio::io::AsyncWriteExt;
    // Whoever asked may be gone.
    let _ = stream.write_all(HELD).await;
}

/// Our resolver, for the names that an agent is allowed.
pub(super) fn answer_names(
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
