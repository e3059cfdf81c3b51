//! What an interceptor's threads run on: their runtime, and the signal that ends them.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

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
