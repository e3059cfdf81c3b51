//! The body of a request, streaming or buffered with its parsed content.

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::budget::BodyPermit;
use super::quoted::QuotedPlaceholders;
use super::{form, json, multipart};
use crate::inject::placeholder::Placeholders;
use crate::inject::references::References;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::body::{Body, full};
use crate::types::rejection::{ErrorCode, Rejection};

/// The body of a request.
pub(crate) enum RequestBody {
    /// A body that streams.
    Streaming(Body),
    /// A buffered body.
    Buffered(BufferedBody),
}

/// A buffered body and its parsed content.
pub(crate) struct BufferedBody {
    pub(super) bytes: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) content: Content,
    /// Secrets named in locations that are never filled: keys, field names and files.
    pub(super) quoted: QuotedPlaceholders,
    pub(super) permit: BodyPermit,
}

/// Parsed content of a body.
pub(super) enum Content {
    Empty,
    Json,
    /// A URL-encoded form.
    Form,
    /// A multipart form.
    Multipart(Vec<multipart::Part>),
    /// A type that secrets are never put into.
    Other,
    /// The body does not match its content type, for this reason.
    Malformed(&'static str),
}

impl RequestBody {
    /// The bytes of a buffered body.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            RequestBody::Streaming(_) => None,
            RequestBody::Buffered(whole) => Some(&whole.bytes),
        }
    }

    /// The trailers of a buffered body.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            RequestBody::Streaming(_) => None,
            RequestBody::Buffered(whole) => whole.trailers.as_ref(),
        }
    }

    /// Adds the secrets that the body names. Fails if it names some in a malformed body.
    pub(crate) fn collect_references(
        &self,
        placeholders: &Placeholders,
        references: &mut References,
    ) -> Result<(), Rejection> {
        let RequestBody::Buffered(whole) = self else { return Ok(()) };
        let quoted = &whole.quoted;
        match &whole.content {
            Content::Empty => Ok(()),
            Content::Other => {
                quoted.record(placeholders, &whole.bytes);
                Ok(())
            }
            Content::Form => form::collect_references(&whole.bytes, placeholders, references, quoted),
            Content::Multipart(parts) => {
                multipart::collect_references(parts, placeholders, references, quoted)
            }
            Content::Json => match std::str::from_utf8(&whole.bytes) {
                Ok(text) => {
                    json::for_each_key(text, |key| quoted.record(placeholders, key.as_bytes()));
                    json::for_each_string(text, |at, value| {
                        references.add_placeholders(placeholders, value.as_bytes(), || {
                            InjectionPoint::new(LocationKind::Json, at.path())
                        })
                    })
                }
                Err(_) => Ok(()),
            },
            Content::Malformed(why) if placeholders.find_iter(&whole.bytes).next().is_some() => {
                let message =
                    format!("the body names a secret, but is not what its Content-Type says: {why}");
                Err(Rejection::new(ErrorCode::BadRequest, message))
            }
            Content::Malformed(_) => Ok(()),
        }
    }

    /// Returns the body for the wire.
    pub(crate) fn into_body(self) -> Body {
        match self {
            RequestBody::Streaming(body) => body,
            RequestBody::Buffered(BufferedBody { bytes, trailers: None, .. }) => full(bytes),
            RequestBody::Buffered(BufferedBody { bytes, trailers: Some(trailers), .. }) => {
                let frames = [Frame::data(bytes), Frame::trailers(trailers)];
                StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync()
            }
        }
    }
}

impl From<Body> for RequestBody {
    fn from(body: Body) -> Self {
        RequestBody::Streaming(body)
    }
}
