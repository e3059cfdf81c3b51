//! A body as it comes from a peer, held to its word. Over HTTP/2 a stream may be reset "without an
//! error", and hyper takes that for the end of the body: here a body has ended only if its peer said so.
//! And a request that was answered early is read on for a moment, so that its client, which is still
//! sending, finds the answer and not a reset.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::types::body::{Body, BodyError};

/// How long, and how many bytes, a request is read on that was answered before its end.
const LINGER: Duration = Duration::from_secs(1);
const LINGERING: usize = 256 * 1024;

/// The body of a request that came over `version`.
pub fn of_request(incoming: Incoming, version: Version) -> Body {
    if version != Version::HTTP_2 || incoming.is_end_stream() {
        // HTTP/1 says where its bodies end, and hyper reads on by itself.
        return incoming.map_err(BodyError::Peer).boxed_unsync();
    }
    Requested { incoming: Some(incoming) }.boxed_unsync()
}

/// Whether `incoming`, of HTTP/2, which gave its last frame, gave it too early.
pub fn is_cut(incoming: &Incoming) -> bool {
    !incoming.is_end_stream()
}

struct Requested {
    /// Gone once it has ended.
    incoming: Option<Incoming>,
}

impl http_body::Body for Requested {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            None if is_cut(incoming) => Some(Err(BodyError::Cut)),
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

impl Drop for Requested {
    fn drop(&mut self) {
        let Some(mut rest) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(LINGER, async move {
            let mut read = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > LINGERING {
                    return;
                }
            }
        }));
    }
}
