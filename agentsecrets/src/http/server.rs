//! HTTP toward the agent: one connection, HTTP/1.1 or HTTP/2, every request of it put to `answer`.
//! Limits are set here, so that a hostile client costs a bounded amount of memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::http::framing::{LARGEST_HEAD, MOST_HEADERS, Violation};
use crate::http::header_case::Spellings;
use crate::http::http1_guard::Gate;
use crate::http::incoming_body;
use crate::types::body::Body;
use crate::types::timeouts::Timeouts;

/// How often an HTTP/2 client that says nothing is asked whether it is there.
const PING: Duration = Duration::from_secs(60);
/// How long a client that was told to go may stay without a request under way.
const GOODBYE: Duration = Duration::from_secs(2);
/// How many requests one HTTP/2 connection may have open.
const MOST_STREAMS: u32 = 250;
/// How much of a body one HTTP/2 stream, and one connection, may have in flight, in bytes. The agent is near,
/// so little is enough; and all streams together fit, so that one that stalls does not stall the others.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;

/// Serves `io` until it ends. When `stop` is cancelled, requests under way are finished and no new one
/// is taken. What is no request is answered here, and `violated` is told of it.
pub async fn serve<IO, A, F>(
    io: IO,
    http2: bool,
    timeouts: &Timeouts,
    stop: &CancellationToken,
    answer: A,
    violated: impl FnOnce(Violation) + Send + 'static,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let spellings = (!http2).then(Arc::<Spellings>::default);
    let service = service_fn(|mut request: Request<Incoming>| {
        let spelling = spellings.as_ref().and_then(|spellings| spellings.pop(request.headers()));
        if let Some(spelling) = spelling {
            request.extensions_mut().insert(spelling);
        }
        let busy = activity.begin();
        let is_upgrade = !http2 && request.headers().contains_key(UPGRADE);
        let version = request.version();
        let answered = answer(request.map(|body| incoming_body::of_request(body, version)));
        async move {
            let mut response = answered.await.map(|body| busy.during(body));
            // Whatever follows a request for another protocol was not read by HTTP's rules.
            if is_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Gate::new(io, spellings.clone(), timeouts, activity.clone(), Box::new(violated)));
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.cancelled() => {}
                () = activity.idle(timeouts.idle) => {}
            }
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = activity.idle(GOODBYE) => Ok(()),
            }
        }};
    }
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(LARGEST_HEAD as u32)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .keep_alive_interval(PING);
        drive!(builder.serve_connection(io, service))
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The gate counts, from a head's first byte.
            .header_read_timeout(None)
            .max_headers(MOST_HEADERS)
            .max_buf_size(LARGEST_HEAD + 1024)
            .auto_date_header(false);
        drive!(builder.serve_connection(io, service).with_upgrades())
    }
}
