//! HTTP server for one agent connection, HTTP/1.1 or HTTP/2. Its limits bound the memory that a hostile
//! client can use.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::http::framing::{MAX_HEAD_SIZE, MAX_HEADERS, Violation};
use crate::http::header_case::HeaderCaseQueue;
use crate::http::http1_guard::Http1Guard;
use crate::http::incoming_body;
use crate::types::body::Body;
use crate::types::hop_by_hop;
use crate::types::timeouts::Timeouts;

/// Interval of HTTP/2 keep-alive pings.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// Time that a draining connection may stay open without a request in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of concurrent HTTP/2 streams on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 250;
/// HTTP/2 flow-control windows, in bytes. The agent is near, so small windows suffice; the connection
/// window holds all streams, so that a stalled stream does not stall the others.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = MAX_CONCURRENT_STREAMS * STREAM_WINDOW;

/// Serves `io` until it ends. When `stop` is cancelled, requests in flight finish and no new ones are
/// accepted. Malformed requests are answered here and reported to `on_violation`.
pub(crate) async fn serve<IO, A, F>(
    io: IO,
    http2: bool,
    timeouts: &Timeouts,
    stop: &CancellationToken,
    respond: A,
    on_violation: impl FnOnce(Violation) + Send + 'static,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let header_cases = (!http2).then(Arc::<HeaderCaseQueue>::default);
    let service = service_fn(|mut request: Request<Incoming>| {
        let header_case = header_cases.as_ref().and_then(|header_cases| header_cases.pop(request.headers()));
        if let Some(header_case) = header_case {
            request.extensions_mut().insert(header_case);
        }
        let exchange = activity.start_exchange();
        let is_upgrade = !http2 && request.headers().contains_key(UPGRADE);
        let version = request.version();
        let response = respond(request.map(|body| incoming_body::from_request(body, version)));
        async move {
            let mut response = response.await.map(|body| exchange.attach_to(body));
            // The bytes after an upgrade request were not checked as HTTP.
            if is_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                hop_by_hop::announce_close(response.headers_mut());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Http1Guard::new(
        io,
        header_cases.clone(),
        timeouts,
        activity.clone(),
        Box::new(on_violation),
    ));
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.cancelled() => {}
                () = activity.wait_idle(timeouts.idle) => {}
            }
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = activity.wait_idle(DRAIN_TIMEOUT) => Ok(()),
            }
        }};
    }
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_header_list_size(MAX_HEAD_SIZE as u32)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL);
        drive!(builder.serve_connection(io, service))
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The guard applies this timeout, from the first byte of a head.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_SIZE + 1024)
            .auto_date_header(false);
        drive!(builder.serve_connection(io, service).with_upgrades())
    }
}
