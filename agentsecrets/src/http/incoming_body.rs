//! Bodies received through hyper. An HTTP/2 stream that is reset with NO_ERROR looks to hyper like the
//! end of the body; here a body has ended only when the peer ended the stream. A request that was
//! answered early is drained for a moment, so that a client that is still sending sees the response and
//! no reset.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::types::body::{Body, BodyError};

/// Limits for draining a request that was answered before its end.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 256 * 1024;

/// Wraps the body of a request received over `version`.
pub(crate) fn from_request(incoming: Incoming, version: Version) -> Body {
    if version != Version::HTTP_2 || incoming.is_end_stream() {
        // HTTP/1 delimits its bodies, and hyper drains them itself.
        return incoming.map_err(BodyError::Peer).boxed_unsync();
    }
    Http2RequestBody { incoming: Some(incoming) }.boxed_unsync()
}

/// Whether an HTTP/2 body that returned its last frame did so before the end of its stream.
fn is_truncated(incoming: &Incoming) -> bool {
    !incoming.is_end_stream()
}

struct Http2RequestBody {
    /// `None` after the end.
    incoming: Option<Incoming>,
}

impl http_body::Body for Http2RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            None if is_truncated(incoming) => Some(Err(BodyError::Reset)),
            frame => frame.map(|frame| frame.map_err(BodyError::Peer)),
        };
        if !matches!(frame, Some(Ok(_))) {
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Http2RequestBody {
    fn drop(&mut self) {
        let Some(mut rest) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(LINGER_TIMEOUT, async move {
            let mut read = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MAX_LINGER_BYTES {
                    return;
                }
            }
        }));
    }
}
