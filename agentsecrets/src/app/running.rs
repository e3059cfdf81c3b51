//! What an interceptor's threads run on: their runtime, the signal that ends them, and the sockets on which names and
//! the health check are answered.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::order::HELD;
use crate::base::host::Host;
use crate::upstream::names;
use crate::upstream::resolver::Resolver;

/// How many threads a worker has for what blocks: hashing programs, reading stores.
const BLOCKING_THREADS: usize = 4;

/// A worker's runtime, whose threads for work that blocks are few and stay.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::MAX)
        .build()
}

/// Lets us end when the system asks, as we do when the launcher ends.
pub(super) fn end_on_signal(
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        asked.recv().await;
        stop.cancel();
    })
}

/// What `agentsecrets health` waits to hear.
pub(super) async fn answer_self_test(mut stream: tokio::net::TcpStream) {
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
    Ok(names::serve(udp, tcp, allows, resolver))
}
